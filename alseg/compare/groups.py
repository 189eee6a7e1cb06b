"""Runs grouped into strategies: those alike in every setting but the seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from alseg.compare.measures import images, is_picked
from alseg.compare.unlike import short_rounds, unlike_machines, unlike_schedules
from alseg.config import PIECES, flatten, without_record
from alseg.errors import UserMistake
from alseg.report.reading import RunView, refuse_unlike
from alseg.settings import COMPUTING
from alseg.store import SETTINGS, START

ASKERS = ("acquirer", "selector")
# they say where, how and how long it was computed, and change no result at a budget
IDLE = {
    "seed",
    "report",
    "cache",
    "device",
    "deterministic",
    "keep_models",
    "trackers",
    "recipe",
    "rounds",
    "budget",
    "query.batch_size",
    "evaluate.batch_size",
} | COMPUTING
ASKING = {"first_pixels", "pixels_per_round", "pool_pixels_per_round", "cap", "start_from", "oracle", "query.size"}
ALL_PIXELS = "all pixels"

Settings = Mapping[str, str]


@dataclass(frozen=True)
class Strategy:
    """Runs alike in every setting but the seed (seed -> run)."""

    name: str
    settings: Settings
    runs: Mapping[int, RunView]
    is_random: bool = False
    is_full: bool = False  # full supervision: the upper line

    @property
    def acquirer(self) -> str:
        """The acquirer's name; empty in full supervision, where nothing is asked."""
        return "" if self.is_full else self.settings["acquirer"]

    @property
    def selector(self) -> str:
        """The selector's name, likewise."""
        return "" if self.is_full else self.settings["selector"]

    @property
    def shared(self) -> frozenset[tuple[str, str]]:
        """The settings besides the acquirer's and selector's."""
        return frozenset((k, v) for k, v in self.settings.items() if k.partition(".")[0] not in ASKERS)

    def trains_like(self, full: Strategy) -> bool:
        """Whether full supervision is trained like it: alike in all settings that both have."""
        mine = {**self.settings, **_evaluated(self.settings)}
        keys = [key for key, _ in self.shared if key in full.settings and not _is_asking(key)]
        return all(mine[key] == full.settings[key] for key in keys)


@dataclass(frozen=True)
class Grouped:
    """The strategies, random first and full supervision last, and what is to be known about their runs."""

    strategies: Sequence[Strategy]
    differing: Sequence[str] = ()  # settings that do not have one value in all strategies
    warnings: Sequence[str] = field(default=())

    def named(self, name: str) -> Strategy | None:
        """The strategy of a name."""
        return next((strategy for strategy in self.strategies if strategy.name == name), None)

    def random_of(self, strategy: Strategy) -> Strategy | None:
        """The random baseline with a strategy's other settings."""
        return next((one for one in self.strategies if one.is_random and one.shared == strategy.shared), None)

    def full_of(self, strategy: Strategy) -> Strategy | None:
        """The full supervision that is trained like a strategy; where several are, that with most in common."""
        alike = [one for one in self.strategies if one.is_full and strategy.trains_like(one)]
        return max(alike, key=lambda one: len(one.shared & strategy.shared), default=None)


def group(views: Sequence[RunView], random: Mapping[str, str], names: Mapping[str, str] | None = None) -> Grouped:
    """Group runs into strategies and name them.

    random: the pieces that make the random baseline (kind -> name); its acquirer draws, whatever selects. names:
    a run folder's resolved path -> the name its strategy was given. Raises UserMistake where datasets, classes or
    evaluation images differ.
    """
    _check_comparable(views)
    one_pool = len({images(view)[0] for view in views}) == 1
    found: dict[tuple[tuple[str, str], ...], list[RunView]] = defaultdict(list)
    for view in sorted(views, key=lambda view: str(view.folder.path)):
        found[tuple(sorted(identity(view, one_pool).items()))].append(view)
    strategies, warnings = [], []
    for settings, runs in sorted(found.items()):
        kept, said = _one_a_seed(runs)
        warnings += said
        full = dict(settings).get("labels") == "all"
        strategies.append(Strategy("", dict(settings), kept, is_full=full))
    named = _named(_with_chance(strategies, random, names or {}), names or {})
    for given in (sorted(_given(strategy, names or {})) for strategy in named):
        if len(given) > 1:
            warnings.append(f"Runs named {' and '.join(given)} are alike in every setting: they are one strategy.")
    order = sorted(named, key=lambda one: (one.is_full, not one.is_random, one.name))
    return Grouped(order, _differing(order), [*warnings, *unlike_schedules(order), *unlike_machines(order)])


def identity(view: RunView, one_pool: bool = True) -> dict[str, str]:
    """What a run's results depend on besides its seed, flat.

    Files count by their content. one_pool: all runs have the same training images, so that it does not
    matter where the dataset's options found them.
    """
    flat = flatten(without_record(view.settings))
    of_trackers = tuple(f"{name.replace('-', '_')}." for name in flat.get("trackers", ()))
    flat = {
        key: _text(value)
        for key, value in flat.items()
        if not {key, key.partition(".")[0]} & IDLE and not key.startswith(of_trackers)
    }
    record = view.record
    flat |= {key: _text(record[key]) for key in ("precision", "void", "split") if key in record}
    digest = record.get("weights", {}).get("sha256")
    if digest:
        flat["model.weights"] = digest[:12]
    start = view.folder.path / START
    if start.exists():
        flat["start_from"] = hashlib.sha256(start.read_bytes()).hexdigest()[:12]
    if one_pool:
        flat = {key: value for key, value in flat.items() if not key.startswith("dataset.")}
    else:
        flat["training images"] = images(view)[0][:12]
    if flat.get("labels") == "all":  # nothing is asked
        flat = {key: value for key, value in flat.items() if key.partition(".")[0] not in ASKERS}
        flat |= _evaluated(flat)
        flat = {key: value for key, value in flat.items() if not _is_asking(key)} | {"labels": "all"}
    elif short := short_rounds(view):
        flat["short rounds"] = short
    return flat


def _is_asking(key: str) -> bool:
    return key in ASKING or key.partition(".")[0] in ("trust", "oracle", "labels", "void")


def _evaluated(flat: Settings) -> dict[str, str]:
    """The size of evaluation, which is that of queries unless it has one of its own, by its name; empty without any."""
    own, query = (flat.get(f"{of}.size", "none") for of in ("evaluate", "query"))
    return {"evaluate.size": query} if own == "none" != query else {}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _with_chance(strategies: Sequence[Strategy], random: Mapping[str, str], names: Mapping[str, str]) -> list[Strategy]:
    """The strategies with the random baselines marked: one for each set of other settings."""
    found: dict[frozenset[tuple[str, str]], Strategy] = {}
    for one in strategies:
        recipe = all(one.settings.get(kind) == name for kind, name in random.items())
        drawn = one.settings.get("acquirer") == random.get("acquirer") and not _given(one, names)
        if not random or one.is_full or not (recipe or (drawn and not any(map(is_picked, one.runs.values())))):
            continue
        if recipe or one.shared not in found:
            found[one.shared] = one
    return [replace(one, is_random=found.get(one.shared) is one) for one in strategies]


def _check_comparable(views: Sequence[RunView]) -> None:
    if not views:
        raise UserMistake("There is no run to compare.")
    evaluated: dict[str, Callable[[RunView], Any]] = {
        "datasets": lambda view: view.piece("dataset"),
        "classes": lambda view: view.classes,
        "evaluation splits": lambda view: view.record.get("split"),
        "evaluation images": lambda view: images(view)[1],
    }
    refuse_unlike(views, evaluated, "compare them apart")


def _one_a_seed(runs: Sequence[RunView]) -> tuple[dict[int, RunView], list[str]]:
    kept: dict[int, RunView] = {}
    said = []
    for run in runs:
        seed = int(run.settings.get("seed", 0))
        other = kept.get(seed)
        if other is None:
            kept[seed] = run
            continue
        stays, goes = (run, other) if len(run.records) > len(other.records) else (other, run)
        kept[seed] = stays
        said.append(
            f"{goes.folder.path} and {stays.folder.path} are alike in every setting and the seed: "
            f"the one with more rounds counts, the latter ({len(stays.records)} against {len(goes.records)})."
        )
    return dict(sorted(kept.items())), said


def _named(strategies: Sequence[Strategy], names: Mapping[str, str]) -> list[Strategy]:
    """A name each, no two the same: the given one, or acquirer and selector; then what tells those alike apart."""
    asking = [one for one in strategies if not one.is_full]
    telling = {id(one): _telling(one, asking if not one.is_full else strategies) for one in strategies}
    bases = {id(one): " / ".join(_given(one, names)) or _pieces(one) for one in strategies}
    named = []
    for one in strategies:
        same = [other for other in strategies if bases[id(other)] == bases[id(one)]]
        keys = telling[id(one)] if not _given(one, names) else _telling(one, same)
        if one.is_full:
            keys = [key for key in keys if len({other.settings.get(key) for other in same}) > 1]
        extra = [f"{key}={one.settings[key]}" for key in keys if key in one.settings]
        named.append(replace(one, name=", ".join([bases[id(one)], *extra])))
    counts, seen, final = Counter(one.name for one in named), Counter[str](), []
    for one in named:
        seen[one.name] += 1
        final.append(replace(one, name=f"{one.name} ({seen[one.name]})") if counts[one.name] > 1 else one)
    return final


def _pieces(strategy: Strategy) -> str:
    if strategy.is_full:
        return ALL_PIXELS
    return strategy.acquirer if strategy.is_random else f"{strategy.acquirer}, {strategy.selector}"


def _telling(strategy: Strategy, others: Iterable[Strategy]) -> list[str]:
    """The settings of a strategy that others have otherwise; a piece's options among those that use the piece."""
    found = []
    for key, value in sorted(strategy.settings.items()):
        kind, _, option = key.partition(".")
        if key in ASKERS or (strategy.is_random and kind in ASKERS):
            continue
        peers = [o for o in others if not (option and kind in PIECES and _unlike_piece(o, strategy, kind))]
        if any(other.settings.get(key) != value for other in peers):
            found.append(key)
    return found


def _unlike_piece(one: Strategy, other: Strategy, kind: str) -> bool:
    return one.settings.get(kind) != other.settings.get(kind) or (one.is_random and kind in ASKERS)


def _differing(strategies: Sequence[Strategy]) -> list[str]:
    keys = {key for one in strategies for key in one.settings}
    asking = [one for one in strategies if not one.is_full] or strategies
    return sorted(
        (key for key in keys if len({one.settings.get(key) for one in asking}) > 1),
        key=lambda key: (key.partition(".")[0] not in ASKERS, key),
    )


def _given(strategy: Strategy, names: Mapping[str, str]) -> list[str]:
    """The names that its runs were given, each once."""
    paths = (str(run.folder.path.resolve()) for run in strategy.runs.values())
    return list(dict.fromkeys(names[path] for path in paths if names.get(path)))


def read_runs(paths: Iterable[Path]) -> list[RunView]:
    """Runs as they are now, each folder once; UserMistake where one is none."""
    found = {path.resolve(): path for path in paths}
    broken = next((path for path in found.values() if not (path / SETTINGS).is_file()), None)
    if broken is not None:
        raise UserMistake(f"{broken} is no run: it has no {SETTINGS}.")
    return [RunView.read(path) for path in found.values()]
