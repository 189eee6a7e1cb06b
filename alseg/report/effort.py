"""What labelling cost: the time and the acts of those who answered, from a run's journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

Event = Mapping[str, Any]
ANSWERS = {"answered", "unsure", "vote"}


@dataclass(frozen=True)
class Act:
    """A key press or click of a person.

    kind: the journal's event. name: the class answered, None for "can't tell" and what is no answer.
    seconds: from the pixel's appearance to the answer, None where nobody measured it. stands: an answer
    that was not taken back.
    """

    kind: str
    item: str
    round: int
    who: str
    name: str | None = None
    seconds: float | None = None
    stands: bool = False


class Spread(NamedTuple):
    """Seconds an answer: how many were timed, their quartiles and the time that 95 % stay within."""

    timed: int
    lower: float
    median: float
    upper: float
    most: float


class Effort(NamedTuple):
    """What some acts amount to.

    answers: those that stand, "can't tell" (`unsure`) included. undos: acts taken back. seconds: of all timed
    answers and picks, also those taken back later; None where none was timed. untimed: answers without a time.
    """

    answers: int
    unsure: int
    picks: int
    skips: int
    undos: int
    acts: int
    untimed: int
    seconds: float | None
    spread: Spread | None


def read_acts(events: Iterable[Event], rounds: Mapping[str, int]) -> list[Act]:
    """The acts of people in a journal, in its order.

    rounds: the round of each item. An event of an unknown item (one asked again, say) counts to the round of
    the event before it. Who answers at once by a program leaves neither a time nor any act but answers: such
    events are no acts of people, and are left out.
    """
    events = [event for event in events if event["event"] != "closed"]  # which is no answer, but their end
    people = {_who(event) for event in events if event["event"] not in ANSWERS or event.get("seconds") is not None}
    acts: list[Act] = []
    standing: dict[str, list[int]] = {}  # the answers to each showing of an item, by their number among the acts
    round = 0
    for event in events:
        round, kind, item, who = rounds.get(event["item"], round), event["event"], event["item"], _who(event)
        if who not in people:
            continue
        answer = kind in ANSWERS
        if answer:
            standing.setdefault(str(event.get("ask", item)), []).append(len(acts))
        elif kind == "retracted" and event.get("what", "answered") in ("answered", "vote"):
            _take_back(acts, standing.get(str(event.get("ask", item)), []), who)
        seconds = event.get("seconds")
        name = event.get("class") if answer else None
        acts.append(Act(kind, item, round, who, name, None if seconds is None else float(seconds), answer))
    return acts


def _who(event: Event) -> str:
    return str(event.get("who") or "")


def _take_back(acts: list[Act], numbers: list[int], who: str) -> None:
    """The last answer of the same person, or else of anybody, stands no more."""
    own = [number for number in numbers if acts[number].who == who] or numbers
    if own:
        acts[own[-1]] = replace(acts[own[-1]], stands=False)
        numbers.remove(own[-1])


def effort(acts: Sequence[Act]) -> Effort:
    """What acts amount to."""
    answers = [act for act in acts if act.kind in ANSWERS]
    stand = [act for act in answers if act.stands]
    timed = [act.seconds for act in acts if act.seconds is not None]
    return Effort(
        answers=len(stand),
        unsure=sum(act.name is None for act in stand),
        picks=sum(act.kind == "picked" for act in acts),
        skips=sum(act.kind == "skipped" for act in acts),
        undos=sum(act.kind == "retracted" for act in acts),
        acts=len(acts),
        untimed=sum(act.seconds is None for act in answers),
        seconds=sum(timed) if timed else None,
        spread=spread([act.seconds for act in stand if act.seconds is not None]),
    )


def spread(seconds: Sequence[float]) -> Spread | None:
    """Quantiles by linear interpolation (type 7 of Hyndman and Fan, 1996); None of nothing."""
    if not seconds:
        return None
    lower, median, upper, most = np.quantile(np.asarray(seconds, np.float64), [0.25, 0.5, 0.75, 0.95]).tolist()
    return Spread(len(seconds), lower, median, upper, most)


def grouped(acts: Iterable[Act], key: Callable[[Act], Any]) -> dict[Any, list[Act]]:
    """Acts by a key, in the order in which the keys come first."""
    groups: dict[Any, list[Act]] = {}
    for act in acts:
        groups.setdefault(key(act), []).append(act)
    return groups


def seconds_by_class(acts: Iterable[Act], classes: Sequence[str]) -> dict[str, list[float]]:
    """The times of the answers that stand, by class in the classes' order, "can't tell" last."""
    found: dict[str, list[float]] = {name: [] for name in (*classes, "can't tell")}
    for act in acts:
        if act.stands and act.seconds is not None:
            found.setdefault(act.name or "can't tell", []).append(act.seconds)
    return {name: seconds for name, seconds in found.items() if seconds}


def up_to_each_round(values: Iterable[tuple[int, float]], rounds: int) -> list[float]:
    """(round, amount) summed up to the end of each of so many rounds."""
    sums = np.zeros(rounds)
    for round, amount in values:
        if round < rounds:
            sums[round] += amount
    return [float(total) for total in sums.cumsum()]
