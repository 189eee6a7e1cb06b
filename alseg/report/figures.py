"""The figures of a report, drawn with matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alseg.report.drawn import Drawn
from alseg.report.reading import RunView
from alseg.values import Question

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart without colour vision; lines differ in marker and dashes besides
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS, DASHES = "osD^vP", ("-", "--", "-.", ":")
INK, MUTED, GRID, PAPER = "#1b1d20", "#63686f", "#dfe2e6", "#fefefd"  # the page gives them its own colours
NAMES = {"learning-curve", "time", "class-iou", "confusion", "diversity", "asked-classes", "places"} | {
    *("labelling-time", "acts", "seconds", "agreement", "audit")
}  # of a run's
MOST_CLASSES = 40  # in a figure with a row a class
MOST_TICKS = 10
MOST_LETTERS = 24  # of a class's name beside an axis, so that there is room for what is drawn
MOST_NUMBERED = 25  # of them, with numbers in the cells


def draw_run(run: RunView) -> Iterator[Drawn]:
    """Every figure of one run that it has something for."""
    if run.scored:
        caption = f"Mean IoU against labelled pixels; grey: each class{_first_of(len(run.classes))}."
        yield Drawn("learning-curve", caption, learning_curve(run))
        yield Drawn("time", "Mean IoU against computing time, training and choosing.", over_time([run]))
        caption = f"IoU of each class over the rounds, in %{_first_of(len(run.classes))}."
        yield Drawn("class-iou", caption, class_iou(run))
        yield from _confusion_of_last(run)
    if run.records and any(run.asked):
        yield Drawn("diversity", "Distinct classes among an image's pixels, mean over images.", diversity(run))
        names, shares = _labelled_or_there(run)
        caption = f"Which classes the labelled pixels are of{_first_of(len(names))}."
        yield Drawn("asked-classes", caption, class_histogram(run, names[:MOST_CLASSES], shares))
        chosen = [q for asked in run.asked[1:] for q in asked if not q.audit]
        after, chosen = (" after the first round", chosen) if chosen else ("", list(itertools.chain(*run.asked)))
        yield Drawn("places", f"Where in the image the pixels lie that were asked{after}.", places(run, chosen))


def draw_comparison(runs: Sequence[RunView]) -> Iterator[Drawn]:
    """Several runs' curves in one figure each."""
    if any(run.scored for run in runs):
        yield Drawn("curves", "Mean IoU against labelled pixels.", over_labels(runs))
        yield Drawn("times", "Mean IoU against computing time, training and choosing.", over_time(runs))


def _first_of(classes: int) -> str:
    """What a figure of so many classes leaves out."""
    return f"; the first {MOST_CLASSES} of {classes} classes" if classes > MOST_CLASSES else ""


def shortened(names: Iterable[str]) -> list[str]:
    """Names for an axis; of a long one its beginning and its end, and a number where others would be alike."""
    half = MOST_LETTERS // 2
    short = [name if len(name) <= MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}" for name in names]
    return [f"{name} ({short[: i + 1].count(name)})" if short.count(name) > 1 else name for i, name in enumerate(short)]


def learning_curve(run: RunView) -> Figure:
    """The mean IoU, and each class's, against the labelled pixels per image."""
    figure, axes = canvas()
    scored = run.scored
    pixels = [record["pixels_per_image"] for record in scored]
    ends = []
    for name in list(scored[0]["iou"])[:MOST_CLASSES]:
        values = [np.nan if r["iou"][name] is None else 100 * r["iou"][name] for r in scored]
        axes.plot(pixels, values, color=MUTED, alpha=0.45, lw=1, zorder=1)
        if not np.isnan(values[-1]):
            ends.append((values[-1], name))
    means = [100 * record["miou"] for record in scored]
    axes.plot(pixels, means, color=COLOURS[0], lw=2.5, marker="o", zorder=3)
    for x, y in some(list(zip(pixels, means, strict=True))):
        side = "right" if x == pixels[-1] and len(pixels) > 1 else "center"  # the classes' names are on the other one
        axes.annotate(f"{y:.1f}", (x, y), (0, 7), textcoords="offset points", ha=side, color=INK, weight="bold")
    if len(ends) <= MOST_NUMBERED:
        heights = _spread([value for value, _ in sorted(ends)], 3.6)
        for y, name in zip(heights, shortened(name for _, name in sorted(ends)), strict=True):
            axes.annotate(
                name, (pixels[-1], y), (8, 0), textcoords="offset points", va="center", size=8, color=MUTED
            ).set_parse_math(False)
    axes.set(xlabel="labelled pixels per image", ylabel=f"IoU on {scored[0]['split']} (%)")
    axes.set_ylim(0, 100)
    axes.set_xticks(some(pixels), [f"{tick:.4g}" for tick in some(pixels)])
    return figure


def over_labels(runs: Sequence[RunView]) -> Figure:
    """The mean IoU of several runs against the labelled pixels per image."""
    return curves(runs, "labelled pixels per image", lambda run: [r["pixels_per_image"] for r in run.records])


def over_time(runs: Sequence[RunView]) -> Figure:
    """The mean IoU of runs against the time spent."""
    return curves(runs, "computing time (minutes)", RunView.minutes)


def curves(runs: Sequence[RunView], label: str, where: Callable[[RunView], list[float] | None]) -> Figure:
    """The mean IoU of several runs against something; those that have nothing of it have no curve."""
    figure, axes = canvas()
    styles = itertools.cycle(itertools.product(DASHES, zip(COLOURS, MARKERS, strict=True)))
    splits = {record["split"] for run in runs for record in run.scored}
    lines, names = [], []
    for run, name, (dash, (colour, marker)) in zip(runs, run_names(runs), styles, strict=False):
        full = len(runs) > 1 and run.settings.get("labels") == "all"
        places = [0.0] * len(run.records) if full else where(run)
        scored = [
            (x, 100 * r["miou"]) for x, r in zip(places or (), run.records, strict=False) if r["miou"] is not None
        ]
        if not scored:
            continue
        if full:  # every pixel is labelled: the upper line
            lines.append(axes.axhline(scored[-1][1], color=colour, ls=dash, lw=2))
            name += " (all pixels)"
        else:
            lines += axes.plot(*zip(*scored, strict=True), color=colour, ls=dash, marker=marker, lw=2)
        names.append(name)
    axes.set(xlabel=label, ylabel=f"mean IoU on {' and '.join(sorted(splits))} (%)")
    axes.set_xlim(left=0)
    if len(runs) > 1:
        legend = figure.legend(lines, names, frameon=False, loc="outside lower center", ncols=2, labelcolor=INK)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def run_names(runs: Sequence[RunView]) -> list[str]:
    """The folders' names, with their parents' where two are the same."""
    names = [run.name for run in runs]
    paths = [run.folder.path.resolve() for run in runs]
    return [f"{p.parent.name}/{name}" if names.count(name) > 1 else name for p, name in zip(paths, names, strict=True)]


def class_iou(run: RunView) -> Figure:
    """A row a class and a column a round, the IoU in each cell."""
    names = list(run.scored[0]["iou"])[:MOST_CLASSES]
    values = [[np.nan if r["iou"][n] is None else 100 * r["iou"][n] for r in run.scored] for n in names]
    figure, axes = canvas(height=1.2 + 0.3 * len(names))
    _heat_map(axes, np.array(values))
    axes.set_yticks(range(len(names)), shortened(names), parse_math=False)
    ticks = some(list(range(len(run.scored))))
    axes.set_xticks(ticks, [f"{run.scored[tick]['pixels_per_image']:.4g}" for tick in ticks])
    axes.set_xlabel("labelled pixels per image")
    _bar(figure, axes, "IoU (%)")
    return figure


def _confusion_of_last(run: RunView) -> Iterator[Drawn]:
    matrix = run.confusion(run.scored[-1]["round"])
    if matrix is None or len(matrix) > MOST_CLASSES:
        return
    totals = matrix.sum(1, keepdims=True)
    shares = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
    size = max(3.2, 1.4 + 0.42 * len(matrix))
    figure, axes = canvas(width=size + 1.2, height=size)
    _heat_map(axes, shares)
    names = shortened(run.classes)
    axes.set_yticks(range(len(matrix)), names, parse_math=False)
    axes.set_xticks(range(len(matrix)), names, rotation=60, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set(xlabel="predicted", ylabel="truth")
    _bar(figure, axes, "of the true class (%)")
    yield Drawn("confusion", f"Of each true class, the % predicted as each, round {run.scored[-1]['round']}.", figure)


def diversity(run: RunView) -> Figure:
    """The paper's diversity over the rounds."""
    figure, axes = canvas()
    rounds = [record["round"] for record in run.records]
    lines = (("classes_per_image", "of the last asking", "o-"), ("classes_per_image_total", "of all labels", "s--"))
    for (key, label, style), colour in zip(lines, COLOURS, strict=False):
        axes.plot(rounds, [_or_nan(r[key]) for r in run.records], style, color=colour, lw=2, label=label)
    axes.set(xlabel="round", ylabel="distinct classes per image")
    axes.set_xticks(some(rounds))
    axes.set_ylim(bottom=0)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, labelcolor=INK)
    return figure


def _labelled_or_there(run: RunView) -> tuple[list[str], dict[str, float]]:
    """The classes that have a label or are in the evaluated masks, and their shares of these, in %, where known."""
    counts, shares = run.label_counts(), {}
    matrix = run.confusion(run.scored[-1]["round"]) if run.scored else None
    if matrix is not None:
        shares = dict(zip(run.classes, 100 * matrix.sum(1) / max(1, matrix.sum()), strict=True))
    return [name for name in run.classes if counts[name] or shares.get(name)] or list(run.classes)[:1], shares


def class_histogram(run: RunView, names: Sequence[str], shares: Mapping[str, float]) -> Figure:
    """The share of each class among the labels, beside its share in the evaluated masks."""
    counts = run.label_counts()
    total = max(1, sum(counts.values()))
    figure, axes = canvas(height=1.4 + 0.3 * len(names))
    rows = np.arange(len(names))
    axes.barh(rows, [100 * counts[name] / total for name in names], color=COLOURS[0], height=0.62, label="labels")
    if shares:
        split = run.scored[-1]["split"]
        axes.plot([shares[name] for name in names], rows, "D", color=COLOURS[1], label=f"pixels of {split}", ls="")
    axes.set_yticks(rows, shortened(names), parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("share (%)")
    axes.grid(axis="x", color=GRID)
    axes.grid(axis="y", visible=False)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, labelcolor=INK)
    return figure


def places(run: RunView, chosen: Sequence[Question]) -> Figure:
    """How many of the chosen pixels lie in each part of the image; all images laid on one another."""
    where = [
        (q.y / run.sizes[q.image][0], q.x / run.sizes[q.image][1])
        for q in chosen
        if q.image in run.sizes and q.y is not None and q.x is not None
    ]
    height, width = next(iter(run.sizes.values()), (3, 4))
    bins = (max(4, min(24, round(16 * height / width))), 16)
    y, x = np.array(where).reshape(-1, 2).T
    counts = np.histogram2d(y, x, bins=bins, range=((0, 1), (0, 1)))[0]
    figure, axes = canvas()
    # the share that a cell would have if pixels were asked everywhere alike
    even = len(where) / counts.size
    axes.imshow(counts / max(even, 1e-9), cmap="cividis", extent=(0, 1, 1, 0), aspect=height / width)
    _bar(figure, axes, "times as many as if asked evenly")
    axes.set(xlabel="x / width", ylabel="y / height")
    axes.grid(visible=False)
    return figure


def canvas(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """A figure with one pair of axes in the house's look."""
    # the object interface: no global state of pyplot, no display needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dress(axes)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def dress(axes: Axes) -> None:
    """Give axes the house's look."""
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelcolor=INK)


def some(values: list[Any]) -> list[Any]:
    """At most MOST_TICKS of the values, evenly, the last among them."""
    step = -(-len(values) // MOST_TICKS)
    return values[::-1][::step][::-1] if values else values


def _bar(figure: Figure, axes: Axes, label: str) -> None:
    """What the colours of the picture in `axes` mean."""
    bar = figure.colorbar(axes.get_images()[0], ax=axes, shrink=0.85)
    bar.set_label(label, color=INK)
    bar.ax.tick_params(colors=MUTED)
    bar.outline.set_visible(False)


def _heat_map(axes: Axes, values: np.ndarray) -> None:
    """Numbers in %, NaN where there are none."""
    axes.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if max(values.shape) <= MOST_NUMBERED:
        for (y, x), value in np.ndenumerate(values):
            ink = MUTED if np.isnan(value) else "#ffffff" if value <= 55 else "#000000"
            axes.text(x, y, "-" if np.isnan(value) else f"{value:.0f}", ha="center", va="center", size=8, color=ink)


def _or_nan(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _spread(values: list[float], gap: float) -> list[float]:
    """Sorted label heights moved apart by at least `gap`, within 0 to 100 where they fit."""
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] + gap) if placed else value)
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - gap if i + 1 < len(placed) else 100.0)
    return placed
