"""The figures of a comparison; each strategy looks the same in all of them, in grey too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alseg.compare.comparison import Cell, Comparison, Difference, Published
from alseg.compare.curves import (
    FEW_SEEDS,
    MARKERS,
    PIXELS,
    SECONDS,
    Style,
    bars,
    curves,
    evenly,
    legend,
    panels,
    styles,
    wrapped,
)
from alseg.compare.statistics import BETTER, REFERENCE, SHARED, WORSE, Summary
from alseg.report.drawn import Drawn
from alseg.report.figures import COLOURS, GRID, INK, MOST_CLASSES, MUTED, canvas, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 4  # budgets beside one another
ROW = 0.3  # inches
NAMES = {"pixels", "seconds", "difference-from-random", "difference-from-baseline", "diversity", "classes"}


def draw(comparison: Comparison, published: Sequence[Published] = ()) -> Iterator[Drawn]:
    """Every figure that there is something for."""
    scored = [cell for one in comparison.asking for cell in comparison.cells[one.name] if cell.miou.mean is not None]
    several = "; bars: 95 % interval over seeds, as far as the figure reaches" if _has_bars(scored) else ""
    if any(1 < len(cell.points) <= FEW_SEEDS for cell in scored):
        several += "; dots: the seeds"
    if scored and not comparison.only_asked:  # the shared first round alone says nothing of strategies
        caption = f"Mean IoU against the pixels asked per image{several}."
        most = max(comparison.budgets, default=0.0) * 1.05  # figures of larger budgets are in the table
        near = [one for one in published if one.pixels_per_image is None or one.pixels_per_image <= most]
        hollow = " Hollow: published figures, by their own protocol." if near else ""
        yield Drawn("pixels", caption + hollow, curves(comparison, lambda cell: cell.pixels, PIXELS, near))
        caption = f"Mean IoU against the seconds of training and choosing up to there{several}."
        yield Drawn("seconds", caption, curves(comparison, lambda cell: cell.seconds, SECONDS))
    for name, differences in (("random", comparison.from_random), ("baseline", comparison.from_baseline)):
        if any(one.paired and one.word not in (SHARED, REFERENCE) for one in differences):
            caption = (
                f"Difference from {name} by seed, with its 95 % interval, not corrected for the number of tests; "
                "filled: told apart after Holm's correction."
            )
            yield Drawn(f"difference-from-{name}", caption, forest(comparison, differences))
    if any(cell.mean(lambda p: p.classes) for cell in _all_cells(comparison)):
        caption = "Distinct classes among an image's pixels of one asking, mean over images and seeds"
        if any(cell.classes.std is not None for cell in _all_cells(comparison)):
            caption += "; bars: 95 % interval over seeds, as far as the figure reaches"
        caption += "."
        yield Drawn("diversity", caption, diversity(comparison))
    if any(comparison.class_shares(one) for one in comparison.asking):
        of = "chosen after the first round" if comparison.has_chosen else "of the first round"
        yield Drawn("classes", f"Of the pixels {of}, the % of each class.", classes(comparison))


def _has_bars(cells: Sequence[Cell]) -> bool:
    return any(cell.miou.std is not None for cell in cells)


def _all_cells(comparison: Comparison) -> list[Cell]:
    return [cell for one in comparison.asking for cell in comparison.cells[one.name]]


def forest(comparison: Comparison, differences: Sequence[Difference]) -> Figure:
    """A row a strategy and a panel a budget: the difference and its interval about a line at zero."""
    looks = styles(comparison)
    shown = [one for one in differences if one.paired and one.word not in (SHARED, REFERENCE)]
    budgets = some(sorted({one.pixels for one in shown if one.pixels is not None}))
    budgets = budgets if len(budgets) <= MOST_PANELS else [budgets[i] for i in evenly(len(budgets), MOST_PANELS)]
    names = list(dict.fromkeys(one.strategy.name for one in shown))
    longest = max(len(line) for name in names for line in wrapped(name).splitlines())
    figure, grid = panels(len(budgets), 1, (1.4 + 0.075 * longest + 1.9 * len(budgets), 1.3 + 1.25 * ROW * len(names)))
    for axes, pixels in zip(grid, budgets, strict=True):
        axes.axvline(0, color=INK, lw=1, ls=(0, (1, 1.5)))
        for one in (one for one in shown if one.pixels == pixels):
            _difference(axes, one, names.index(one.strategy.name), looks[one.strategy.name])
        axes.set_title(f"{pixels:.4g} pixels an image", size=9, color=INK)
        axes.grid(axis="x", color=GRID)
        axes.grid(axis="y", visible=False)
        axes.set_yticks(range(len(names)), [wrapped(name) for name in names], parse_math=False)
        axes.tick_params(axis="y", length=0, labelleft=axes is grid[0])
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("difference in mean IoU (points)", size=10, color=INK)
    return figure


def _difference(axes: Axes, one: Difference, row: int, style: Style) -> None:
    assert one.paired is not None
    told = one.word in (BETTER, WORSE)
    mean, low = 100 * one.paired.mean, one.paired.low
    marker = "h" if style.marker == "x" else style.marker  # a cross has no inside
    axes.errorbar(
        mean,
        row,
        xerr=None if low is None else mean - 100 * low,
        fmt=marker,
        color=style.colour,
        mfc=style.colour if told else "none",
        ms=7,
        mew=1.5,
        elinewidth=1.5,
        capsize=3,
    )


def diversity(comparison: Comparison) -> Figure:
    """A row a strategy, a marker a budget: distinct classes among an image's pixels of one asking."""
    shown = [one for one in comparison.asking if any(c.mean(lambda p: p.classes) for c in comparison.cells[one.name])]
    budgets = sorted({cell.pixels for one in shown for cell in comparison.cells[one.name] if cell.round > 0})
    budgets = [budgets[i] for i in evenly(len(budgets), 6)]
    figure, axes = canvas(7.2, 1.7 + 1.25 * ROW * max(2, len(shown)))
    for number, pixels in enumerate(budgets):
        found = [(row, cell.classes) for row, one in enumerate(shown) if (cell := comparison.cell(one, pixels))]
        known = [(row, classes) for row, classes in found if classes.mean is not None]
        if known:
            shift = 0.08 * (number - (len(budgets) - 1) / 2)  # so that bars stand below one another
            _classes_at(axes, number, [(row + shift, classes) for row, classes in known], f"asked up to {pixels:.4g}")
    first = [c.mean(lambda p: p.classes) for one in shown for c in comparison.cells[one.name] if c.is_shared]
    drawn = [value for value in first if value is not None]
    if drawn:
        axes.axvline(float(np.mean(drawn)), color=INK, lw=1.2, ls=(0, (1, 1.5)), label="the random first round")
    axes.set_yticks(range(len(shown)), [wrapped(one.name) for one in shown], parse_math=False)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(axis="both", color=GRID)
    axes.set_xlabel("distinct classes per image")
    legend(figure, [axes])
    return figure


def _classes_at(axes: Axes, number: int, found: Sequence[tuple[float, Summary]], label: str) -> None:
    """A budget's markers, with their intervals: (row, classes)."""
    means = [classes.mean or 0.0 for _, classes in found]
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    rows = [row for row, _ in found]
    axes.plot(means, rows, color=colour, marker=marker, ls="none", ms=7, mfc="none", mew=1.6, label=label)
    bars(axes, found, colour, across=True)


def classes(comparison: Comparison) -> Figure:
    """A row a class, a column a strategy: the % of the chosen pixels that are of it."""
    shown = [one for one in comparison.asking if comparison.class_shares(one)]
    shares = [comparison.class_shares(one) for one in shown]
    run = next(iter(shown[0].runs.values()))
    names = [name for name in run.classes if any(share.get(name) for share in shares)][:MOST_CLASSES]
    values = np.array([[100 * share.get(name, 0.0) for share in shares] for name in names])
    tallest = max(len(one.name) for one in shown)
    figure, axes = canvas(2.4 + 0.62 * max(5, len(shown)), 1.2 + 0.3 * len(names) + 0.065 * min(40, tallest))
    picture = axes.imshow(values, cmap="cividis", vmin=0, vmax=max(1.0, values.max()), aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        ink = "#ffffff" if value < 0.55 * values.max() else "#000000"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", size=8, color=ink)
    ticks: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(shown)), [wrapped(one.name) for one in shown], parse_math=False, **ticks)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    bar = figure.colorbar(picture, ax=axes, shrink=0.85)
    bar.set_label("of the chosen pixels (%)", color=INK)
    bar.ax.tick_params(colors=MUTED, labelcolor=INK)
    bar.outline.set_visible(False)
    return figure
