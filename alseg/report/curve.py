"""The learning curve as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def table_rows(records: Sequence[Record]) -> list[list[str]]:
    """A header and a row a round, as text."""
    rows = [["round", "pixels/image", "mIoU %", "accuracy %", "classes/image", "loss", "train s", "choose s"]]
    for record in records:
        rows.append(
            [
                str(record["round"]),
                f"{record['pixels_per_image']:.4g}",
                _percent(record["miou"]),
                _percent(record["pixel_accuracy"]),
                "-" if record["classes_per_image_total"] is None else f"{record['classes_per_image_total']:.2f}",
                "-" if record["loss"] is None else f"{record['loss']:.3f}",
                f"{record['train_seconds']:.1f}",
                f"{record['acquire_seconds']:.1f}",
            ]
        )
    return rows


def draw_curve(records: Sequence[Record], title: str) -> bytes | None:
    """The mean IoU, and each class's, against the labelled pixels per image, as PNG; None where there is none."""
    scored = [record for record in records if record["miou"] is not None]
    if not scored:
        return None
    # the object interface: no global state of pyplot, no display needed
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(7.2, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    pixels = [record["pixels_per_image"] for record in scored]
    ends = []
    for name in scored[0]["iou"]:
        values = [None if r["iou"][name] is None else 100 * r["iou"][name] for r in scored]
        axes.plot(pixels, [float("nan") if v is None else v for v in values], color="0.75", lw=1, zorder=1)
        if values[-1] is not None:
            ends.append((values[-1], name))
    means = [100 * record["miou"] for record in scored]
    axes.plot(pixels, means, color="#0b5fa5", lw=2.5, marker="o", zorder=3)
    for x, y in zip(pixels, means, strict=True):
        axes.annotate(f"{y:.1f}", (x, y), (0, 7), textcoords="offset points", ha="center", color="#0b5fa5")
    for y, (_, name) in zip(_spread([value for value, _ in sorted(ends)], 3.4), sorted(ends), strict=True):
        axes.annotate(name, (pixels[-1], y), (8, 0), textcoords="offset points", va="center", size=8, color="0.4")
    axes.set(xlabel="labelled pixels per image", ylabel=f"IoU on {scored[0]['split']} (%)", title=title)
    axes.set_ylim(0, 100)
    axes.set_xticks(pixels)
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Line2D([], [], color="#0b5fa5", lw=2.5, marker="o"), Line2D([], [], color="0.75", lw=1)]
    figure.legend(handles, ["mean over classes", "each class"], frameon=False, loc="outside lower center", ncols=2)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _spread(values: list[float], gap: float) -> list[float]:
    """Sorted label heights moved apart by at least `gap`, within 0 to 100."""
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] + gap) if placed else value)
    excess = max(0.0, placed[-1] - 100) if placed else 0.0
    for i in range(len(placed) - 1, -1, -1):
        top = placed[i + 1] - gap if i + 1 < len(placed) else 100.0
        placed[i] = min(placed[i], top) if excess else placed[i]
    return placed
