"""Whether more labels are worth their while: the gain of the last rounds, with what can be said of it honestly.

One run gives one mIoU a round. How far it would move with other evaluation images cannot be had from a total
confusion matrix (pixels of an image are no independent draws, so binomial errors would be far too small), and
how far with another seed only from other seeds. What one run does show is how its rounds scatter around a
smooth curve. So the intervals of one run are those of a straight line fitted to its last rounds, and those over
seeds are paired over seeds; neither says more than that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from alseg.compare.statistics import ROUNDING, quantile, summary
from alseg.report.agreement import LEAST_ROUNDS, Agreed, Interval, Slope

WINDOW = 5  # rounds that a trend looks back on, at most
Record = Mapping[str, Any]


class Trend(NamedTuple):
    """A line through the last rounds, in fractions of mIoU.

    rounds: how many it looks at. gain: what it rose from the first of them to the last. next_gain: what it is
    expected to rise with as many pixels again as the last round had, `next_pixels`, and next_miou the interval
    in which that round's own mIoU would lie. Intervals are None where the rounds show no scatter, what concerns
    the next round where the last had no new labels.
    """

    rounds: int
    gain: float
    gain_interval: Interval | None
    next_pixels: float
    next_gain: float | None
    next_gain_interval: Interval | None
    next_miou: Interval | None


class PairedGain(NamedTuple):
    """The mean gain of `seeds` runs from round `first` to `last`, and its interval."""

    seeds: int
    first: int
    last: int
    gain: float
    interval: Interval | None


def gains(records: Sequence[Record]) -> list[tuple[int, float]]:
    """(round, what its mIoU is above that of the round before), where both were evaluated."""
    scores = [(record["round"], record["miou"]) for record in records]
    steps = pairwise(scores)
    return [(r, after - before) for (_, before), (r, after) in steps if before is not None and after is not None]


def trend(records: Sequence[Record]) -> Trend | None:
    """The line through the last WINDOW evaluated rounds; None with fewer than three or no new labels in them.

    mIoU is regressed on the logarithm of the labelled pixels by least squares, all rounds weighing the same (they
    are measured on the same images); the logarithm takes most of the bend out of a learning curve. Intervals are
    Student's t with n - 2 degrees of freedom: of the slope, and for one more observation
    (Draper and Smith, Applied Regression Analysis, 1998, chapters 1.4 and 3.1). They hold if the rounds scatter
    independently and alike around that line. Looked at after every round, one interval in twenty misses.
    """
    scored = [r for r in records if r["miou"] is not None and r["labelled_pixels"] > 0][-WINDOW:]
    if len(scored) < 3 or scored[-1]["labelled_pixels"] <= scored[0]["labelled_pixels"]:
        return None
    pixels = np.array([r["labelled_pixels"] for r in scored], np.float64)
    x, y, n = np.log(pixels), np.array([r["miou"] for r in scored], np.float64), len(scored)
    away = x - x.mean()
    squares = float(away @ away)
    slope = float(away @ y) / squares
    residual = y - y.mean() - slope * away
    scatter = sqrt(float(residual @ residual) / (n - 2))
    t, error = quantile(n - 2), scatter / sqrt(squares)
    known = scatter > 1e-9

    def over(step: float) -> Interval | None:
        return Interval((slope - t * error) * step, (slope + t * error) * step) if known else None

    seen = Trend(n, slope * float(x[-1] - x[0]), over(float(x[-1] - x[0])), 0.0, None, None, None)
    more = float(pixels[-1] - pixels[-2])
    if more <= 0:
        return seen
    ahead = float(np.log(pixels[-1] + more))
    middle = float(y.mean()) + slope * (ahead - float(x.mean()))
    half = t * scatter * sqrt(1 + 1 / n + (ahead - float(x.mean())) ** 2 / squares)
    step = ahead - float(x[-1])
    expected = Interval(max(0.0, middle - half), min(1.0, middle + half)) if known else None
    return seen._replace(next_pixels=more, next_gain=slope * step, next_gain_interval=over(step), next_miou=expected)


def paired_gain(runs: Iterable[Sequence[Record]], back: int = 1) -> PairedGain | None:
    """The gain of the last `back` rounds that all runs have finished and evaluated, over runs of several seeds.

    Each run's gain is one observation; the interval is Student's for their mean (the paired t test), and None
    where they do not differ. It is about seeds: the evaluation images are the same. None with fewer than two runs
    or rounds.
    """
    scores = [{r["round"]: r["miou"] for r in records if r["miou"] is not None} for records in runs]
    common = sorted(set.intersection(*map(set, scores))) if scores else []
    if len(scores) < 2 or len(common) <= back:
        return None
    first, last = common[-1 - back], common[-1]
    found = summary([run[last] - run[first] for run in scores])
    assert found.mean is not None and found.std is not None and found.low is not None and found.high is not None
    interval = Interval(found.low, found.high) if found.std > ROUNDING else None
    return PairedGain(found.seeds, first, last, found.mean, interval)


# In words


def advice(records: Sequence[Record], images: int, agreement: Sequence[Agreed], slope: Slope | None) -> list[str]:
    """What a run's rounds say about going on, a sentence or two each; nothing where they say nothing."""
    audit = list(on_audit(records))
    said = [*_on_gains(records, images), *audit, *on_agreement(agreement, slope)]
    if said and not audit and all(record["miou"] is None for record in records):
        said.insert(0, "No masks to evaluate on: how often the model guesses the answers is the only sign there is.")
    return said


def on_audit(records: Sequence[Record]) -> Iterable[str]:
    """The last model's accuracy at pixels that only measure, where a run has some."""
    audit = records[-1].get("audit") if records else None
    if audit:
        share, low, high = (100 * audit[key] for key in ("accuracy", "low", "high"))
        unsure = audit.get("unsure", 0)
        yield (
            f"At {audit['pixels']} random pixels that it is never trained on the model is right in {share:.0f} % "
            f"(95 % interval {low:.0f} to {high:.0f})."
            + (f" Another {unsure} were asked and could not be told; they do not count." if unsure else "")
        )


def _on_gains(records: Sequence[Record], images: int) -> Iterable[str]:
    steps, line = gains(records), trend(records)
    if not steps:
        return
    listed = ", ".join(points(gain) for _, gain in steps[1 - WINDOW :])
    yield f"From one round to the next mIoU changed by {listed} points."
    if line is None:
        yield "That is too little for a trend: it takes three evaluated rounds with new labels in them."
        return
    gained = f"Over the last {line.rounds - 1} of these steps the trend is {points(line.gain)} points in all"
    yield f"{gained}{_bounds(line.gain_interval)}: {verdict(line.gain_interval)}"
    if line.next_gain is not None:
        per_image = line.next_pixels / max(1, images)
        asked = f"{per_image:.3g} pixels an image" if per_image >= 1 else f"{line.next_pixels:.0f} pixels"
        more = f"Another round of {asked} would change it by {points(line.next_gain)} points on this trend"
        yield f"{more}{_bounds(line.next_gain_interval)}{_foreseen(line.next_miou)}."


def verdict(gain: Interval | None, over: str = "rounds") -> str:
    """What an interval of a gain over rounds or seeds says, and no more."""
    if gain is None:
        return "there is no scatter to judge it by."
    if gain.low > 0:
        return "it still rises, more labels help."
    if gain.high < 0:
        return "it falls. Look for wrong labels before adding more."
    return f"it cannot be told apart from no gain. Either the labels are enough, or the {over} too few to tell."


def on_agreement(rounds: Sequence[Agreed], slope: Slope | None) -> Iterable[str]:
    """The agreement's first and last share and its trend, in words that claim no more than these show."""
    if not rounds:
        return
    first, last = rounds[0], rounds[-1]
    if len(rounds) == 1:
        yield f"The model had guessed {_share(last)} of the answers in round {last.round}."
        return
    said = f"The model had guessed {_share(first)} of the answers in round {first.round} and {_share(last)} in round "
    said += f"{last.round}"
    if slope is None:
        yield said + f"; a trend takes {LEAST_ROUNDS} rounds."
        return
    said += f", {points(slope.value)} points a round{_bounds(slope.interval)}: "
    if slope.interval is None:
        yield said + "there is no scatter to judge it by."
    elif slope.interval.low > 0:
        yield said + "it seems to foresee more of them, so a new label may teach it less."
    elif slope.interval.high < 0:
        yield said + "it seems to foresee fewer of them: the pixels asked now may be harder."
    else:
        yield said + "no trend can be told."


def on_seeds(name: str, found: PairedGain) -> str:
    """The gain over seeds in a sentence."""
    said = f"{name}: over {found.seeds} seeds mIoU changed by {points(found.gain)} points"
    said += f" from round {found.first} to {found.last}{_bounds(found.interval)}"
    return f"{said}: {verdict(found.interval, 'seeds')}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    text = f"{100 * fraction:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f" (95 % interval {points(interval.low)} to {points(interval.high)})"


def _foreseen(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"; its mIoU would lie between {100 * interval.low:.1f} and {100 * interval.high:.1f} % (95 % prediction)"


def _share(agreed: Agreed) -> str:
    return f"{100 * agreed.share:.0f} %"
