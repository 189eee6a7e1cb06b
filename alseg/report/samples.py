"""A picture of a few images of a dataset beside the same with their masks laid over."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from alseg.colours import colours_of
from alseg.errors import UserMistake
from alseg.imagefiles import shrunk
from alseg.protocols import Dataset
from alseg.values import Classes

LONGER_SIDE = 480  # pixels a sample is shown with, at most
OPACITY = 0.6
COLUMNS = 2
MOST_IN_LEGEND = 60


def draw_samples(dataset: Dataset, chosen: Sequence[tuple[str, int]], path: Path, title: str) -> None:
    """Write the picture; each of `chosen` is a split and the number of an image in it. Void stays unpainted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(14, 1.6 + 2.9 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, parse_math=False)
    for axes, (split, i) in zip(figure.subplots(rows, COLUMNS, squeeze=False).flat, chosen, strict=False):
        images = dataset.images(split)
        image, mask = images.image(i), images.mask(i)
        axes.imshow(_side_by_side(image, mask, dataset.classes))
        note = "" if mask is not None else ", no mask"
        name = f"{split}: {images.key(i)}, {image.shape[0]}x{image.shape[1]}{note}"
        axes.set_title(name, size=9, parse_math=False)
    for axes in figure.axes:
        axes.set_axis_off()
    if len(dataset.classes) <= MOST_IN_LEGEND:
        patches = [Patch(color=(r / 255, g / 255, b / 255)) for r, g, b in colours_of(dataset.classes)]
        legend = figure.legend(
            patches, dataset.classes.names, loc="outside lower center", ncols=8, frameon=False, fontsize=9
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    try:
        with warnings.catch_warnings(action="ignore"):  # letters that the font lacks become boxes
            figure.savefig(path)
    except OSError as error:
        raise UserMistake(f"Cannot write the picture {path}: {error.strerror or error}.") from error


def _side_by_side(image: np.ndarray, mask: np.ndarray | None, classes: Classes) -> np.ndarray:
    """The image, and right of it the image under its mask, uint8 [h, 2 w + gap, 3], no side over LONGER_SIDE."""
    whole = Image.fromarray(np.ascontiguousarray(image))
    small = np.asarray(shrunk(whole, LONGER_SIDE, Image.Resampling.BOX))
    height, width = small.shape[:2]
    gap = np.full((height, max(1, width // 60), 3), 255, np.uint8)
    return np.concatenate([small, gap, small if mask is None else _painted(small, mask, classes)], 1)


def _painted(small: np.ndarray, mask: np.ndarray, classes: Classes) -> np.ndarray:
    height, width = small.shape[:2]
    # the mask's pixel under the centre of each pixel shown
    y = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    x = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    shown = mask[y[:, None], x[None, :]].astype(np.int64)
    known = (shown >= 0) & (shown < len(classes)) & (shown != classes.void)
    colours = np.array(colours_of(classes), np.float64)[np.where(known, shown, 0)]
    blend = (1 - OPACITY) * small + OPACITY * colours
    return np.where(known[..., None], blend, small).round().astype(np.uint8)
