"""Augmentation that moves labelled points with their pixels.

A training image is scaled, padded at the right and bottom with the fill colour, cropped and flipped
(`alseg.engine.warping`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from alseg import noise
from alseg.engine.colour import SIGMA
from alseg.settings import Augmentation

# How the numbers of one (epoch, image) stream are used; the rest of them colour the image.
SCALE, TOP, LEFT, FLIP = range(4)
DRAWS = SIGMA + 1


@dataclass(frozen=True)
class Geometry:
    """Where an image of `source` (H, W) pixels lands in a crop of `crop` (H, W) pixels.

    The image is scaled to `scaled` pixels; the crop's upper left corner lies at (top, left) of that; then
    it may be mirrored. A continuous position y of the source, pixel centres at + 0.5, lands at
    y * scaled_H / H - top; likewise x, and a flip turns x into crop_W - x.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    crop: tuple[int, int]
    top: int
    left: int
    flip: bool

    @property
    def fits(self) -> bool:
        """Whether all of the image is in the crop, which then lies nowhere else."""
        return self.scaled[0] <= self.crop[0] and self.scaled[1] <= self.crop[1]

    def exact(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the centres of integer pixels [n, 2] land in the crop, float64 [m, 2], and which they are [m]."""
        moved = (pixels + 0.5) * (np.array(self.scaled) / np.array(self.source)) - (self.top, self.left)
        kept = ((moved >= 0) & (moved < np.array(self.crop))).all(1)
        if self.flip:
            moved[:, 1] = self.crop[1] - moved[:, 1]
        return moved[kept], kept.nonzero()[0]

    def nearest(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which pixels of the crop a nearest-neighbour resize of the label map would label.

        Pixel i of the scaled map shows source pixel floor((i + 0.5) * H / scaled_H), as the published
        code's resize by Pillow does, so a label is lost, kept or written several times. Gives the centres float64
        [m, 2] and the index int64 [m] of the label that each shows.
        """
        found, owners = [], []
        for index, pixel in enumerate(pixels):
            rows = _shown(int(pixel[0]), self.source[0], self.scaled[0]) - self.top
            columns = _shown(int(pixel[1]), self.source[1], self.scaled[1]) - self.left
            rows = rows[(rows >= 0) & (rows < self.crop[0])]
            columns = columns[(columns >= 0) & (columns < self.crop[1])]
            if self.flip:
                columns = self.crop[1] - 1 - columns
            grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
            found.append(grid + 0.5)
            owners.append(np.full(len(grid), index))
        if not found:
            return np.zeros((0, 2)), np.zeros(0, np.int64)
        return np.concatenate(found), np.concatenate(owners).astype(np.int64)

    def mask(self, mask: np.ndarray, void: int) -> np.ndarray:
        """A class map [H, W] in the crop by nearest neighbour, [crop_H, crop_W]; `void` in the padding."""
        rows = _nearest(self.source[0], self.scaled[0], self.top, self.crop[0])
        columns = _nearest(self.source[1], self.scaled[1], self.left, self.crop[1])
        moved = np.full(self.crop, void, np.int64)
        moved[: len(rows), : len(columns)] = mask[np.ix_(rows, columns)]
        return moved[:, ::-1] if self.flip else moved


def is_still(change: Augmentation) -> bool:
    """Whether nothing but the crop's place is left to chance."""
    return change.scale[0] == change.scale[1] and not any((change.flip, change.jitter, change.grayscale, change.blur))


def draw_geometry(
    draws: Sequence[float],
    source: tuple[int, int],
    crop: tuple[int, int],
    scale: tuple[float, float],
    flip: float,
    base: tuple[int, int] | None = None,
) -> Geometry:
    """A geometry from uniform numbers: at scale 1 the image has the size `base`, by default the crop's."""
    factor = scale[0] + draws[SCALE] * (scale[1] - scale[0])
    height, width = base or crop
    scaled = (max(1, int(height * factor)), max(1, int(width * factor)))
    spare = (max(0, scaled[0] - crop[0]), max(0, scaled[1] - crop[1]))
    top, left = int(draws[TOP] * (spare[0] + 1)), int(draws[LEFT] * (spare[1] + 1))
    return Geometry(source, scaled, crop, top, left, draws[FLIP] < flip)


def draws_of(seed: int, round: int, epoch: int, keys: Sequence[str]) -> list[list[float]]:
    """The uniform numbers of each image in an epoch."""
    starts = [noise.stream(seed, round, f"augment {epoch}", key) for key in keys]
    return noise.uniforms(starts, DRAWS).tolist()


def _shown(pixel: int, size: int, scaled: int) -> np.ndarray:
    """The pixels of the resized line that show source pixel `pixel`."""
    return (_resized_numbers(size, scaled) == pixel).nonzero()[0]


def _nearest(size: int, scaled: int, start: int, count: int) -> np.ndarray:
    """The source pixel that each pixel of the crop shows, up to where the padding begins."""
    return _resized_numbers(size, scaled)[start : start + count]


@lru_cache(4096)
def _resized_numbers(size: int, scaled: int) -> np.ndarray:
    """The source pixel that each pixel of a resized line shows, int64 [scaled].

    It is floor((i + 0.5) * size / scaled); where a centre falls on the seam of two pixels, Pillow's sums of
    floats choose, and so Pillow is asked.
    """
    line = Image.fromarray(np.arange(size, dtype=np.int32)[None])
    return np.asarray(line.resize((scaled, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
