"""The page's sections on the answers: when to stop, agreement, cost, likeliest mistakes, why a pixel was asked."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tomli_w

from alseg.errors import AlsegError
from alseg.plugins import Registry
from alseg.report.agreement import (
    CONFIDENT,
    Agreed,
    Answered,
    agreement_by_round,
    agreement_slope,
    examples,
    likeliest_mistakes,
)
from alseg.report.crops import crop_of
from alseg.report.effort import Act, effort, grouped
from alseg.report.figures import run_names
from alseg.report.reading import RunView
from alseg.report.stopping import WINDOW, advice, on_seeds, paired_gain
from alseg.trust import is_of, wilson

Rows = list[list[str]]
# settings that tell runs of one experiment apart, or say where and how it was computed
OWN = ("seed", "record", "report", "cache", "device")


def answer_sections(view: RunView, registry: Registry) -> dict[str, Any]:
    """What the page says of one run's answers, by the names that the template knows."""
    rounds = agreement_by_round(view.answered)
    last = [pair for pair in view.answered if pair.label.round == len(view.records) - 1]
    mistakes, shown = likeliest_mistakes(view.answered), examples(last)
    guessed = any(pair.question.guess is not None for pair in view.answered)
    return {
        "advice": advice(view.records, len(view.sizes), rounds, agreement_slope(view.answered)),
        "agreement": _agreement_rows(rounds) + _by_sight(view) if rounds else None,
        "twice": _twice_rows(view.asked_twice),
        "cost": _cost(view) if view.acts else None,
        "confident": f"{100 * CONFIDENT:.0f} %",
        "mistakes": _mistakes(view, mistakes) if guessed else None,
        "why": _why(view, shown) if shown else None,
        "acquirer": view.piece("acquirer"),
        "acquirer_says": said_of_acquirer(view, registry),
    }


def said_of_acquirer(view: RunView, registry: Registry) -> str:
    """The first line of what the run's acquirer says of itself; nothing where it is not installed."""
    try:
        return registry.recalling(view.settings.get("record")).find("acquirer", view.piece("acquirer")).says()
    except AlsegError:
        return ""


def labelling_facts(view: RunView) -> list[tuple[str, str]]:
    """What labelling cost in a few words; nothing where a program answered."""
    if not view.acts:
        return []
    done = effort(view.acts)
    time = "" if done.seconds is None else f"{done.seconds / 60:.1f} minutes, "
    return [("labelling", f"{time}{done.acts} key presses and clicks")]


def _agreement_rows(rounds: Iterable[Agreed]) -> Rows:
    rows = [["round", "guessed", "of answers", "share %", "95 % interval"]]
    return rows + [_agreement_row(str(one.round), one.agreed, one.guessed) for one in rounds]


def _agreement_row(name: str, agreed: int, guessed: int) -> list[str]:
    low, high = wilson(agreed, guessed)
    return [name, str(agreed), str(guessed), f"{100 * agreed / guessed:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]


def _by_sight(view: RunView) -> Rows:
    """The same of all rounds, by whether the guess was in sight; nothing where no share was asked blind."""
    share, seed = float(view.settings.get("trust", {}).get("blind", 0)), int(view.settings.get("seed", 0))
    if not share:
        return []
    pairs: dict[str, list[Answered]] = {"all, guess in sight": [], "all, blind": []}
    for pair in view.answered:
        blind = is_of(share, "blind", pair.label.item, seed, pair.label.round)
        pairs["all, blind" if blind else "all, guess in sight"].append(pair)
    rows = []
    for name, several in pairs.items():
        rounds = agreement_by_round(several)
        agreed, guessed = sum(one.agreed for one in rounds), sum(one.guessed for one in rounds)
        if guessed:
            rows.append(_agreement_row(name, agreed, guessed))
    return rows


def _twice_rows(found: Mapping[str, Any]) -> Rows | None:
    """What was asked twice, of the same person and of two; None where nothing was."""
    rows = [["who", "asked twice", "same answer %", "95 % interval", "kappa"]]
    same = [("the same person again", found["again"], None)] if found["again"] else []
    for who, one, kappa in [*same, *((" and ".join(p["who"]), p, p["kappa"]) for p in found["people"])]:
        cells = [who, str(one["pairs"]), f"{100 * one['same']:.1f}"]
        cells.append(f"{100 * one['low']:.1f} to {100 * one['high']:.1f}")
        rows.append([*cells, "-" if kappa is None else f"{kappa:.2f}"])
    return rows if len(rows) > 1 else None


def _cost(view: RunView) -> dict[str, Any]:
    done = effort(view.acts)
    words = []
    if done.spread is not None:
        s = done.spread
        words.append(
            f"An answer took {s.median:.1f} seconds (median; half of them {s.lower:.1f} to {s.upper:.1f}, 95 % within "
            f"{s.most:.1f}). All together, {'with picks and' if done.picks else 'with'} what was taken back, it took "
            f"{_minutes(done.seconds)} minutes."
        )
    if done.untimed:
        words.append(f"{done.untimed} answers carry no time and are in no figure of seconds.")
    counts = [(done.answers, "answers"), (done.unsure, 'of them "can\'t tell"'), (done.picks, "picks")]
    counts += [(done.skips, "put off"), (done.undos, "taken back")]
    words.append(", ".join(f"{count} {what}" for count, what in counts if count or what == "answers") + ".")
    tables = [("By round", _effort_rows("round", grouped(view.acts, lambda act: act.round)))]
    tables += [("By person", _effort_rows("person", grouped(view.acts, lambda act: act.who or "unknown")))]
    by_class = grouped((act for act in view.acts if act.stands), lambda act: act.name or "can't tell")
    order = [*view.classes, "can't tell"]
    in_order = {name: by_class[name] for name in [*order, *(by_class.keys() - {*order})] if name in by_class}
    tables += [("By class", _class_rows(in_order))] if in_order else []
    return {"words": words, "tables": tables}


def _effort_rows(what: str, groups: Mapping[Any, Sequence[Act]]) -> Rows:
    rows = [[what, "answers", "can't tell", "put off", "taken back", "keys, clicks", "minutes", *_SPREAD]]
    for key, acts in groups.items():
        e = effort(acts)
        counts = (e.answers, e.unsure, e.skips, e.undos, e.acts)
        rows.append([str(key), *map(str, counts), _minutes(e.seconds), *_spread_cells(acts)])
    return rows


def _class_rows(groups: Mapping[str, Sequence[Act]]) -> Rows:
    rows = [["class", "answers", "minutes", *_SPREAD]]
    for name, acts in groups.items():
        rows.append([name, str(len(acts)), _minutes(effort(acts).seconds), *_spread_cells(acts)])
    return rows


_SPREAD = ("median s", "middle half s", "95 % within s")


def _spread_cells(acts: Sequence[Act]) -> list[str]:
    s = effort(acts).spread
    return ["-", "-", "-"] if s is None else [f"{s.median:.1f}", f"{s.lower:.1f} to {s.upper:.1f}", f"{s.most:.1f}"]


def _minutes(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds / 60:.1f}"


def _mistakes(view: RunView, found: Iterable[Answered]) -> list[dict[str, Any]]:
    rows = []
    for question, label in found:
        cells = [label.name, question.guess, _percent(question.probability), label.image, f"{label.y}, {label.x}"]
        crop = _crop(view, Answered(question, label))
        rows.append({"crop": crop, "cells": [*cells, str(label.round), label.who or "-"]})
    return rows


def _why(view: RunView, found: Iterable[Answered]) -> list[dict[str, Any]]:
    rows = []
    for q, label in found:
        cells = [q.guess or "-", _percent(q.probability), q.rival or "-", label.name or "can't tell"]
        cells += [f"{q.utility:.3g}", "-" if q.rank is None else str(q.rank + 1)]
        cells += ["-" if q.entropy is None else f"{q.entropy:.2f}", label.image, f"{label.y}, {label.x}"]
        rows.append({"crop": _crop(view, Answered(q, label)), "cells": cells})
    return rows


def _crop(view: RunView, pair: Answered) -> dict[str, Any] | None:
    crop = crop_of(view.folder, pair, view.sizes.get(pair.label.image))
    if crop is None:
        return None
    address = f"data:image/jpeg;base64,{base64.b64encode(crop.content).decode()}"
    return {"address": address, "y": round(100 * crop.y, 2), "x": round(100 * crop.x, 2)}


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.0f} %"


def over_seeds(views: Sequence[RunView]) -> list[str]:
    """Sentences on the gain over the seeds of each experiment that has two or more among the runs."""
    names = run_names(views)
    groups: dict[str, dict[Any, int]] = {}  # settings -> seed -> run
    for number, view in enumerate(views):
        groups.setdefault(_experiment(view), {}).setdefault(view.settings.get("seed"), number)
    several = [list(seeds.values()) for seeds in groups.values() if len(seeds) > 1]
    titles = [views[numbers[0]].pieces for numbers in several]
    said = []
    for numbers, title in zip(several, titles, strict=True):
        if Counter(titles)[title] > 1:
            title = ", ".join(names[number] for number in numbers)
        for back in (WINDOW - 1, 1):
            found = paired_gain([views[number].records for number in numbers], back)
            said += [on_seeds(title, found)] if found is not None else []
    return said


def _experiment(view: RunView) -> str:
    """A run's settings without those of its own, for comparison."""
    return tomli_w.dumps({key: value for key, value in sorted(view.settings.items()) if key not in OWN})
