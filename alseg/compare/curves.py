"""The curves of a comparison and what its figures share: looks, panels, legends; told apart in grey too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alseg.compare.comparison import Cell, Comparison, Published
from alseg.compare.groups import Strategy
from alseg.compare.statistics import Summary
from alseg.report.figures import COLOURS, INK, MUTED, canvas, dress, some

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "osD^vPX<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1.5, 1)), (0, (8, 1.5, 1, 1, 1, 1.5)))
MOST_TOGETHER = 6  # curves in one pair of axes; more get a panel each
MOST_PANEL_TICKS = 5
FEW_SEEDS = 5  # so many are drawn as points
PIXELS, SECONDS = "pixels asked per image", "training and choosing (seconds)"


class Style(NamedTuple):
    """How a strategy is drawn."""

    colour: str
    marker: str
    dash: Any
    filled: bool = True


def styles(comparison: Comparison) -> dict[str, Style]:
    """By strategy: random is the ink's colour, thin and dotted; the others differ in colour, marker and dashes."""
    found: dict[str, Style] = {}
    others = 0
    for one in comparison.grouped.strategies:
        if one.is_random and not any(style.colour == INK for style in found.values()):
            found[one.name] = Style(INK, "x", (0, (1, 1.5)))
            continue
        colour, marker = COLOURS[others % len(COLOURS)], MARKERS[others % len(MARKERS)]
        found[one.name] = Style(colour, marker, DASHES[others % len(DASHES)], others < len(MARKERS))
        others += 1
    return found


def curves(
    comparison: Comparison,
    where: Callable[[Cell], float | None],
    label: str,
    published: Sequence[Published] = (),
) -> Figure:
    """The mean IoU of all strategies against something; a panel each where they are many."""
    looks = styles(comparison)
    shown = [one for one in comparison.asking if any(c.miou.mean is not None for c in comparison.cells[one.name])]
    splits = sorted({str(run.record.get("split")) for one in shown for run in one.runs.values()})
    height = f"mean IoU on {' and '.join(splits)} (%)"
    if len(shown) > MOST_TOGETHER:
        return _panels(comparison, shown, where, (label, height), published)
    figure, axes = canvas(7.2, 4.4 + 0.22 * (len(shown) + len(published)) / 2)
    for number, one in enumerate(shown):
        shift = 0.006 * (number - (len(shown) - 1) / 2)
        _curve(axes, comparison.cells[one.name], where, looks[one.name], one.name, shift)
    _full_lines(axes, comparison)
    if label == PIXELS:
        _published(axes, published, looks)
        axes.set_xticks(some(comparison.budgets), [f"{pixels:.4g}" for pixels in some(comparison.budgets)])
    axes.set(xlabel=label, ylabel=height)
    legend(figure, [axes])
    return figure


def _curve(
    axes: Axes,
    cells: Sequence[Cell],
    where: Callable[[Cell], float | None],
    style: Style,
    name: str,
    shift: float = 0.0,
    size: float = 6.0,
) -> None:
    known = [(x, cell) for cell in cells if cell.miou.mean is not None and (x := where(cell)) is not None]
    if not known:
        return
    at = np.array([place for place, _ in known])
    x = at + shift * np.ptp(at)  # so that bars stand beside one another
    mean = np.array([100 * (cell.miou.mean or 0) for _, cell in known])
    face = style.colour if style.filled else "white"
    look: dict[str, Any] = {
        "color": style.colour,
        "marker": style.marker,
        "mfc": face,
        "ls": style.dash,
        "lw": 1.8,
        "ms": size,
    }
    (line,) = axes.plot(x, mean, **look, zorder=3)
    line.set_label(f" {name}" if name.startswith("_") else name)
    bars(axes, [(place, cell.miou) for place, (_, cell) in zip(x.tolist(), known, strict=True)], style.colour, 100, 1)
    spots = [
        (place, 100 * point.miou)
        for place, (_, cell) in zip(x.tolist(), known, strict=True)
        for point in cell.points.values()
        if point.miou is not None and 1 < len(cell.points) <= FEW_SEEDS
    ]
    if spots:
        places, heights = zip(*spots, strict=True)
        axes.scatter(places, heights, s=16, color=style.colour, alpha=0.8, linewidths=0, zorder=2.5)


def bars(
    axes: Axes,
    found: Sequence[tuple[float, Summary]],
    colour: str,
    factor: float = 1,
    most: float = np.inf,
    across: bool = False,
) -> None:
    """Intervals at places of the x axis (across: of the y axis), within 0 and `most`, times the factor.

    They leave the axes' limits alone: of two seeds Student's interval is thirteen times as long as these are apart,
    and beside it the curves would be flat.
    """
    from matplotlib.collections import LineCollection

    known = [(place, s.low, s.high) for place, s in found if s.low is not None and s.high is not None]
    ends = [((place, factor * max(0.0, low)), (place, factor * min(most, high))) for place, low, high in known]
    lines = [[end[::-1] for end in line] if across else list(line) for line in ends]
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.1, zorder=2), autolim=False)


def _full_lines(axes: Axes, comparison: Comparison) -> None:
    for number, one in enumerate(comparison.full):
        for cell in comparison.cells[one.name]:
            if cell.miou.mean is not None:
                dash = ("-", "--", "-.")[number % 3]
                axes.axhline(100 * cell.miou.mean, color=MUTED, lw=1.6, ls=dash, label=f"{one.name} (upper line)")


def _published(axes: Axes, published: Sequence[Published], looks: dict[str, Style]) -> None:
    """Hollow markers in the strategy's colour, one entry of the legend a strategy and protocol."""
    groups: dict[tuple[str, str, str], list[Published]] = {}
    for one in published:
        groups.setdefault((one.strategy or "published", one.source, one.protocol), []).append(one)
    for number, ((name, source, protocol), several) in enumerate(groups.items()):
        style = looks.get(name, Style(MUTED, MARKERS[number % len(MARKERS)], ":"))
        label = f"{name}: {source}, {protocol}"
        look: dict[str, Any] = {"color": style.colour, "mfc": "none", "ms": 9, "mew": 1.5}
        points = [one for one in several if one.pixels_per_image is not None]
        for one in several:
            if one.pixels_per_image is None:
                axes.axhline(one.miou, color=style.colour, lw=1, ls=":", label="" if points else f"{label}, all pixels")
        if points:
            x, y = [p.pixels_per_image or 0 for p in points], [p.miou for p in points]
            marker = "h" if style.marker == "x" else style.marker  # a cross has no inside
            axes.errorbar(x, y, [p.std or 0 for p in points], fmt=marker, lw=1, capsize=3, **look, label=label)


def _lines_of_all(comparison: Comparison, published: Sequence[Published]) -> list[Published]:
    """Published figures of full supervision."""
    asking = {one.name for one in comparison.asking}
    return [one for one in published if one.pixels_per_image is None and one.strategy not in asking]


def _panels(
    comparison: Comparison,
    shown: Sequence[Strategy],
    where: Callable[[Cell], float | None],
    labels: tuple[str, str],
    published: Sequence[Published],
) -> Figure:
    """A panel a strategy, with random and full supervision in it; the others stand behind in grey."""
    looks = styles(comparison)
    randoms = {one.name for one in shown if one.is_random}
    lines_of_all = _lines_of_all(comparison, published)
    own = [one for one in shown if one.name not in randoms] or list(shown)
    columns = 3 if len(own) < 13 else 4
    lines = -(-len(own) // columns)
    figure, grid = panels(columns, lines, (2.9 * columns, 2.3 * lines + 0.9))
    for axes, one in zip(grid, own, strict=False):
        for other in shown:
            known = [(x, c.miou.mean) for c in comparison.cells[other.name] if (x := where(c)) is not None]
            scored = [(x, 100 * mean) for x, mean in known if mean is not None]
            if scored and other is not one and other.name not in randoms:
                axes.plot(*zip(*scored, strict=True), color=MUTED, lw=0.7, alpha=0.4, zorder=1)
        random = comparison.grouped.random_of(one)
        if random is not None:
            _curve(axes, comparison.cells[random.name], where, looks[random.name], random.name, -0.01, 4.0)
        _full_lines(axes, comparison)
        _curve(axes, comparison.cells[one.name], where, looks[one.name], one.name, 0.01, 4.0)
        if labels[0] == PIXELS:
            _published(axes, [p for p in published if p.strategy in (one.name, None) or p in lines_of_all], looks)
            ticks = some(comparison.budgets)
            ticks = ticks[::2] if len(ticks) > MOST_PANEL_TICKS else ticks
            axes.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
        axes.set_title(wrapped(one.name), size=9, color=INK, parse_math=False)
    for axes in grid[len(own) :]:
        axes.remove()
    del grid[len(own) :]
    for axes in grid[-columns:]:  # not one for all: it would lie on the legend
        axes.set_xlabel(labels[0], size=8, color=INK)
    figure.supylabel(labels[1], size=10, color=INK)
    legend(figure, grid, {one.name for one in own})
    return figure


def panels(columns: int, lines: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Panels that share both axes, in the house's look."""
    figure, first = canvas(*size)
    first.remove()
    grid: list[Axes] = []
    for number in range(columns * lines):
        shared = grid[0] if grid else None
        axes = figure.add_subplot(lines, columns, number + 1, sharex=shared, sharey=shared)
        dress(axes)
        axes.tick_params(labelsize=8)
        grid.append(axes)
    return figure, grid


def legend(figure: Figure, several: Sequence[Axes], without: set[str] | None = None) -> None:
    """One below the figure for all its panels; names are text, never formulas."""
    entries: dict[str, Any] = {}
    for axes in several:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in (without or ()):
                entries.setdefault(label, handle)
    if entries:
        columns = 1 if max(map(len, entries)) > 48 else 2
        drawn = figure.legend(
            entries.values(), entries, frameon=False, loc="outside lower center", ncols=columns, labelcolor=INK
        )
        for text in drawn.get_texts():
            text.set_parse_math(False)


def wrapped(name: str, width: int = 26) -> str:
    """A long name on lines, broken after its commas."""
    lines = [""]
    for part in name.split(", "):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]}, {part}" if lines[-1] else part
    return "\n".join(lines)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, the first and the last among them."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))}) if count else []
