"""The figures on who answered: mean IoU against their time and acts, seconds an answer, agreement with the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alseg.report.agreement import Agreed, agreement_by_round
from alseg.report.drawn import Drawn
from alseg.report.effort import seconds_by_class, spread
from alseg.report.figures import COLOURS, GRID, INK, MOST_CLASSES, canvas, curves, shortened, some
from alseg.report.reading import RunView

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIME = "Mean IoU against the time spent on answers and picks."
ACTS = "Mean IoU against key presses and clicks, those that were taken back too."


def draw_answers(run: RunView) -> Iterator[Drawn]:
    """What one run has of them."""
    if run.scored and run.labelling_minutes():
        yield Drawn("labelling-time", TIME, over_labelling([run]))
    if run.scored and run.acts:
        yield Drawn("acts", ACTS, over_acts([run]))
    times = seconds_by_class(run.acts, run.classes)
    if times:
        caption = "Seconds an answer took: median (dot), the middle half (bar), 95 % are within the line"
        caption += f"; the first {MOST_CLASSES + 1} of {len(times)} classes." if len(times) > MOST_CLASSES + 1 else "."
        yield Drawn("seconds", caption, seconds_of_classes(times))
    rounds = agreement_by_round(run.answered)
    if rounds:
        caption = "Answers that the model had guessed, with 95 % intervals (Wilson)."
        yield Drawn("agreement", caption, agreement(rounds))
    if any(record.get("audit") for record in run.records):
        caption = "Accuracy at random pixels that are never trained on, with 95 % intervals (Wilson)."
        yield Drawn("audit", caption, audited(run.records))


def draw_efforts(runs: Sequence[RunView]) -> Iterator[Drawn]:
    """Several runs' curves against time and acts, where people answered."""
    scored = [run for run in runs if run.scored]
    if any(run.labelling_minutes() for run in scored):
        yield Drawn("labelling-times", TIME, over_labelling(runs))
    if any(run.acts for run in scored):
        yield Drawn("all-acts", ACTS, over_acts(runs))


def over_labelling(runs: Sequence[RunView]) -> Figure:
    """The mean IoU of runs against the time spent on answers."""
    return curves(runs, "time spent on answers and picks (minutes)", RunView.labelling_minutes)


def over_acts(runs: Sequence[RunView]) -> Figure:
    """The mean IoU of runs against key presses and clicks."""
    return curves(runs, "key presses and clicks", RunView.acts_so_far)


def seconds_of_classes(times: dict[str, list[float]]) -> Figure:
    """A row a class: median, quartiles and the time that 95 % stay within."""
    names = list(times)[: MOST_CLASSES + 1]
    found = [spread(times[name]) for name in names]
    figure, axes = canvas(height=1.2 + 0.3 * len(names))
    for row, one in enumerate(found):
        assert one is not None  # there is no class without a time
        axes.plot([one.upper, one.most], [row, row], color=COLOURS[0], lw=1.5)
        axes.barh(row, one.upper - one.lower, left=one.lower, height=0.5, color=COLOURS[0], alpha=0.45)
        axes.plot(one.median, row, "o", color=COLOURS[0], ms=6)
    axes.set_yticks(range(len(names)), shortened(names), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("seconds an answer")
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=GRID)
    axes.grid(axis="y", visible=False)
    return figure


def agreement(rounds: Sequence[Agreed]) -> Figure:
    """The share of answers that the model had guessed, by round."""
    # no line between the points: it would run through their numbers
    return _shares([(one.round, one.share, *one.interval) for one in rounds], "answers guessed by the model (%)", "")


def audited(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The accuracy at audited pixels, by round; a round without any has no point."""
    found = [(record["round"], audit) for record in records if (audit := record.get("audit"))]
    points = [(round, audit["accuracy"], audit["low"], audit["high"]) for round, audit in found]
    return _shares(points, "accuracy at audited pixels (%)", "-")


def _shares(points: Sequence[tuple[int, float, float, float]], label: str, line: str) -> Figure:
    """Shares over rounds with their intervals; points: (round, share, low, high)."""
    figure, axes = canvas()
    x, shares, low, high = (list(column) for column in zip(*points, strict=True))
    y = 100 * np.array(shares)
    errors = np.abs(100 * np.array([low, high]) - y)
    axes.errorbar(x, y, errors, color=COLOURS[0], ls=line, marker="o", ms=7, elinewidth=1.5, capsize=4)
    for place, height in some(list(zip(x, y.tolist(), strict=True))):
        offset = (8, -9) if line else (8, 0)
        axes.annotate(f"{height:.0f}", (place, height), offset, textcoords="offset points", va="center", color=INK)
    axes.set(xlabel="round", ylabel=label)
    axes.set_xticks(some(x))
    axes.set_xlim(min(x) - 0.5, max(x) + 0.5)
    axes.set_ylim(0, 100)
    return figure
