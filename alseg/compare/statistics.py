"""What seeds can tell: means, paired differences, Holm's correction, areas under curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
ALPHA = 0.05
POWER = 0.8
MOST_SEEDS = 1000  # beyond it nobody would try
ROUNDING = 1e-12  # a spread or a difference of mIoU below it is a matter of rounding

BETTER, WORSE, SAME = "better", "worse", "not distinguishable"
ONE_SEED, SHARED, REFERENCE = "one seed", "shared first round", "reference"


class Summary(NamedTuple):
    """Values over seeds: sample standard deviation and Student's interval, None where too few."""

    seeds: int
    mean: float | None
    std: float | None
    low: float | None
    high: float | None


class Paired(NamedTuple):
    """The mean difference over the seeds that two strategies share, its interval and two-sided p."""

    pairs: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    p: float | None


def summary(values: Sequence[float | None]) -> Summary:
    """Mean, standard deviation and interval of the values that are known."""
    known = np.array([value for value in values if value is not None and not math.isnan(value)], np.float64)
    if len(known) == 0:
        return Summary(0, None, None, None, None)
    mean = float(known.mean())
    if len(known) == 1:
        return Summary(1, mean, None, None, None)
    std = float(known.std(ddof=1))
    half = quantile(len(known) - 1) * std / math.sqrt(len(known))
    return Summary(len(known), mean, std, mean - half, mean + half)


def paired(ours: Mapping[int, float | None], theirs: Mapping[int, float | None]) -> Paired | None:
    """Ours less theirs by the paired t test, over the seeds in both (seed -> value); None where there is none.

    With one pair there is a difference and no test. Where all differences are one number, p is what the test
    tends to: 1 for no difference, else 0.
    """
    from scipy.special import stdtr

    seeds = sorted(_known(ours) & _known(theirs))
    if not seeds:
        return None
    differences = np.array([float(ours[s] or 0) - float(theirs[s] or 0) for s in seeds])
    found = summary(differences.tolist())
    assert found.mean is not None
    if found.std is None:
        return Paired(1, found.mean, None, None, None, None)
    if found.std < ROUNDING:
        p = 1.0 if abs(found.mean) < ROUNDING else 0.0
    else:
        statistic = found.mean / (found.std / math.sqrt(len(seeds)))
        p = float(2 * stdtr(len(seeds) - 1, -abs(statistic)))
    return Paired(len(seeds), found.mean, found.std, found.low, found.high, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for being several, in the order given (Holm, Scand. J. Statist. 6, 1979)."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        corrected[number] = highest
    return corrected


def verdict(difference: float, p_corrected: float | None) -> str:
    """The word for a paired difference; without a p there was one seed."""
    if p_corrected is None:
        return ONE_SEED
    if p_corrected >= ALPHA:
        return SAME
    return BETTER if difference > 0 else WORSE


def power(effect: float, seeds: int, alpha: float) -> float:
    """The chance that a two-sided paired t test finds a difference of `effect` standard deviations."""
    from scipy.special import nctdtr, stdtrit

    critical = float(stdtrit(seeds - 1, 1 - alpha / 2))
    shift = abs(effect) * math.sqrt(seeds)
    missed = float(nctdtr(seeds - 1, shift, critical))
    wrong_side = float(nctdtr(seeds - 1, shift, -critical))
    if math.isnan(missed):  # where the function gives up: far beyond the critical value, or far below
        return float(shift > critical)
    return 1 - missed + (0.0 if math.isnan(wrong_side) else wrong_side)


def seeds_needed(difference: float, std: float | None, tests: int = 1) -> int | None:
    """Seeds at which a difference as seen, with its spread as seen, would be told with a chance of 0.8.

    tests: among how many; the level is 0.05 divided by it, Holm's first step. None where the difference or
    its spread is unknown, the difference is 0, or more than 1000 seeds would be needed.
    """
    if std is None or abs(difference) < ROUNDING:
        return None
    if std < ROUNDING:
        return 2
    effect, alpha = difference / std, ALPHA / max(1, tests)
    low, high = 2, MOST_SEEDS
    if power(effect, high, alpha) < POWER:
        return None
    while low < high:  # power grows with the seeds
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, middle, alpha) >= POWER else (middle + 1, high)
    return low


def area(pixels: Sequence[float], values: Sequence[float], low: float, high: float) -> float | None:
    """The mean height of a curve between two budgets, in the values' unit: trapezoids over pixels per image.

    pixels: rising. None where the curve does not reach from `low` to `high`.
    """
    if len(pixels) < 2 or high <= low or pixels[0] > low * 1.005 or pixels[-1] < high * 0.995:
        return None
    inner = [pixel for pixel in pixels if low < pixel < high]
    places = np.array([low, *inner, high])
    heights = np.interp(places, pixels, values)
    return float(np.diff(places) @ (heights[1:] + heights[:-1]) / 2 / (high - low))


def reached_at(pixels: Sequence[float], values: Sequence[float], goal: float) -> float | None:
    """The first budget at which a curve is as high as `goal`, between budgets on a straight line; None: never."""
    for number, (pixel, value) in enumerate(zip(pixels, values, strict=True)):
        if value >= goal:
            if number == 0:
                return pixel
            before, lower = pixels[number - 1], values[number - 1]
            return before + (pixel - before) * (goal - lower) / (value - lower)
    return None


def _known(values: Mapping[int, float | None]) -> set[int]:
    return {seed for seed, value in values.items() if value is not None and not math.isnan(value)}


def quantile(freedom: int) -> float:
    """How many standard errors Student's interval reaches to either side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + LEVEL / 2))
