"""Answers held against what the model had guessed: how often they agree, and where they differ most."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from alseg.compare.statistics import quantile
from alseg.trust import wilson
from alseg.values import PixelLabel, Question

CONFIDENT = 0.5  # a guess held likelier than all other classes together
LEAST_ROUNDS = 3  # of a trend: a line through two rounds fits them whatever they say
MOST = 20  # mistakes and examples that are listed
MOST_OF_IMAGE = 2  # examples


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float


class Answered(NamedTuple):
    """A question with the label that answered it."""

    question: Question
    label: PixelLabel


class Agreed(NamedTuple):
    """Of `guessed` answers of a round `agreed` were the model's guess; the interval is of their share."""

    round: int
    agreed: int
    guessed: int
    interval: Interval

    @property
    def share(self) -> float:
        """In [0, 1]."""
        return self.agreed / self.guessed


class Slope(NamedTuple):
    """Change of a share from one round to the next; no interval where there is no scatter to judge by.

    The interval goes no further than shares from 0 to 1 could.
    """

    value: float
    interval: Interval | None


def answered(questions: Iterable[Question], labels: Iterable[PixelLabel]) -> list[Answered]:
    """Questions with their labels; those that have none are left out."""
    by_item = {label.item: label for label in labels}
    return [Answered(question, by_item[question.item]) for question in questions if question.item in by_item]


def agreement_by_round(pairs: Iterable[Answered]) -> list[Agreed]:
    """The share of answers that the model had guessed, of each round that has any, with Wilson's interval."""
    counts: dict[int, list[int]] = {}
    for question, label in pairs:
        if question.guess is not None and label.name is not None:
            counts.setdefault(label.round, [0, 0])[0] += question.guess == label.name
            counts[label.round][1] += 1
    return [Agreed(round, k, n, Interval(*wilson(k, n))) for round, (k, n) in sorted(counts.items())]


def agreement_slope(pairs: Iterable[Answered]) -> Slope | None:
    """The trend of the agreement over the rounds; None with fewer than three rounds that have guesses.

    The least-squares slope of agreed (1) or not (0) on the round's number. Pixels of one image are no
    independent draws, so its variance is the cluster-robust one over images (Liang and Zeger, 1986, with the
    factor G / (G - 1) (N - 1) / (N - 2) and Student's t of G - 1 degrees of freedom: Cameron and Miller, 2015,
    section VI). It tells how these models' guesses went, not how those of other runs would.
    """
    kept = [(q.image, label.round, q.guess == label.name) for q, label in pairs if q.guess and label.name]
    if len({round for _, round, _ in kept}) < LEAST_ROUNDS:
        return None
    images, group = np.unique([image for image, _, _ in kept], return_inverse=True)
    x = np.array([round for _, round, _ in kept], np.float64)
    y = np.array([agreed for _, _, agreed in kept], np.float64)
    x -= x.mean()
    slope = float(x @ y / (x @ x))
    moments = np.bincount(group, x * (y - y.mean() - slope * x))  # one an image
    n, g = len(y), len(images)
    if g < 2 or n < 3:
        return Slope(slope, None)
    error = sqrt(g / (g - 1) * (n - 1) / (n - 2) * float(moments @ moments)) / float(x @ x)
    if error < 1e-12:
        return Slope(slope, None)
    half = quantile(g - 1) * error
    most = float(np.abs(x).sum()) / (2 * float(x @ x))  # all agreed after the mean round, and none before it
    return Slope(slope, Interval(max(-most, slope - half), min(most, slope + half)))


def likeliest_mistakes(pairs: Iterable[Answered]) -> list[Answered]:
    """Answers that differ from a guess held for CONFIDENT or more, the surest guess first, then by item.

    The guess was made before the pixel was labelled, by a model that had not been trained on it: the
    out-of-sample probability by which confident learning ranks labels (Northcutt et al., 2021).
    """
    found = [
        pair
        for pair in pairs
        if pair.question.guess not in (None, pair.label.name)
        and pair.label.name is not None
        and (pair.question.probability or 0.0) >= CONFIDENT
    ]
    return sorted(found, key=lambda pair: (-(pair.question.probability or 0.0), pair.label.item))[:MOST]


def examples(pairs: Sequence[Answered], most: int = MOST) -> list[Answered]:
    """The questions of highest utility, so many of an image at most; ties in the order in which they were asked."""
    taken: dict[str, int] = {}
    found: list[Answered] = []
    asked = [pair for pair in pairs if pair.question.utility is not None]
    for pair in sorted(asked, key=lambda pair: -(pair.question.utility or 0.0)):
        image = pair.question.image
        if len(found) < most and taken.get(image, 0) < MOST_OF_IMAGE:
            taken[image] = taken.get(image, 0) + 1
            found.append(pair)
    return found
