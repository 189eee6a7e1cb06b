"""Labels that can be trusted: what is asked twice, and pixels that only measure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, combinations
from typing import Any

import numpy as np

from alseg import noise
from alseg.journal import Event, final_asks
from alseg.ledger import Plan
from alseg.settings import TrustSettings
from alseg.values import Answer, PixelLabel, Question

Z = 1.959963984540054  # of a 95 % interval


def plan_of(questions: Sequence[Question], trust: TrustSettings, seed: int, round: int) -> Plan:
    """Which questions are asked of several people, which again and which blind; a question's own name decides.

    Questions whose pixel is still to be picked are asked once.
    """
    placed = [question.item for question in questions if question.y is not None]

    def chosen(purpose: str, share: float) -> list[str]:
        return [item for item in placed if is_of(share, purpose, item, seed, round)]

    people = dict.fromkeys(chosen("overlap", trust.overlap), trust.voters)
    return Plan(people, frozenset(chosen("asked again", trust.again)), frozenset(chosen("blind", trust.blind)))


def is_of(share: float, purpose: str, item: str, seed: int, round: int) -> bool:
    """Whether a question of a round is of the share for a purpose: "overlap", "asked again" or "blind"."""
    return noise.chance(seed, round, purpose, item) < share


def audit_questions(
    keys: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    taken: Iterable[tuple[str, int | None, int | None]],
    count: int,
    known: Callable[[int, int, int], bool],
    *,
    seed: int,
    round: int,
) -> list[Question]:
    """`count` pixels, each uniform over all pixels of the pool that were never asked, to measure with.

    keys, sizes: of the images. taken: (image, y, x) that are asked otherwise. known: image number, y, x -> whether
    the pixel may be asked. Fewer where hardly any pixel is left.
    """
    ends = list(accumulate(height * width for height, width in sizes))
    taken = set(taken)
    found: list[Question] = []
    for draw in range(20 * count + 100):
        if len(found) == count:
            break
        place = int(noise.chance(seed, round, "audit", str(draw)) * ends[-1])
        i = int(np.searchsorted(ends, place, side="right"))
        y, x = divmod(place - (ends[i - 1] if i else 0), sizes[i][1])
        if (keys[i], y, x) not in taken and known(i, y, x):
            taken.add((keys[i], y, x))
            found.append(Question("", keys[i], y, x, audit=True))
    return found


def accuracy(labels: Sequence[PixelLabel], predicted: Sequence[str], unsure: int = 0) -> dict[str, Any] | None:
    """The share of audited pixels that a model gets right, with its 95 % interval; None where there is none.

    labels: audits with a class. predicted: the model's class of each. unsure: how many nobody could tell. The
    pixels are independent and uniform over the pool and were never trained on, so the share is unbiased for the
    pool's pixels that can be told and were not trained on.
    """
    if not labels:
        return None
    right = sum(label.name == name for label, name in zip(labels, predicted, strict=True))
    low, high = wilson(right, len(labels))
    return {"pixels": len(labels), "unsure": unsure, "accuracy": right / len(labels), "low": low, "high": high}


def agreement(events: Iterable[Event]) -> dict[str, Any]:
    """How often the same person answers the same again, and how often two people answer alike.

    `again`: {"pairs", "same", "low", "high"}, with a 95 % interval; `people`: the same of each two people, with
    their names and Cohen's kappa (1960), null where chance alone explains all. "Can't tell" counts as a class.
    None, or no entry, where nothing was asked twice.
    """
    answers = final_asks(events)
    again: list[tuple[str | None, str | None]] = []
    people: dict[tuple[str, str], list[tuple[str | None, str | None]]] = {}
    by_item: dict[str, list[Answer]] = {}
    for ask, answer in answers.items():
        item, _, turn = ask.partition("/")
        if turn == "again":
            if item in answers:
                again.append((answers[item].name, answer.name))
        else:
            by_item.setdefault(item, []).append(answer)
    for given in by_item.values():
        for one, other in combinations(sorted(given, key=lambda answer: answer.who), 2):
            people.setdefault((one.who, other.who), []).append((one.name, other.name))
    return {
        "again": _same(again),
        "people": [{"who": list(who), **_same(pairs), "kappa": kappa(pairs)} for who, pairs in sorted(people.items())],
    }


def _same(pairs: Sequence[tuple[str | None, str | None]]) -> Any:
    if not pairs:
        return None
    same = sum(one == other for one, other in pairs)
    low, high = wilson(same, len(pairs))
    return {"pairs": len(pairs), "same": same / len(pairs), "low": low, "high": high}


def kappa(pairs: Sequence[tuple[str | None, str | None]]) -> float | None:
    """Cohen's kappa: the agreement beyond what the two people's own frequencies would give by chance."""
    count = len(pairs)
    first, second = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    chance = sum(first[name] * second[name] for name in first) / count**2
    same = sum(one == other for one, other in pairs) / count
    return None if chance == 1 else (same - chance) / (1 - chance)


def wilson(hits: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927)."""
    share, spread = hits / count, Z * Z / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == count else centre + half)
