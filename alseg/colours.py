"""Colours for classes."""

from __future__ import annotations

import numpy as np
from PIL import Image

from alseg.values import Classes

Colour = tuple[int, int, int]


def palette(count: int) -> tuple[Colour, ...]:
    """The first colours of PASCAL VOC's palette: black, then as distinct as 8 bits allow.

    Bit k of a colour's highest bits is taken from bits 3 k to 3 k + 2 of its number (VOCdevkit's VOCcolormap).
    """
    return tuple((_channel(number, 0), _channel(number, 1), _channel(number, 2)) for number in range(count))


def colours_of(classes: Classes) -> tuple[Colour, ...]:
    """A colour each: the dataset's own, or the palette's without black."""
    return classes.colours or palette(len(classes) + 1)[1:]


def _channel(number: int, channel: int) -> int:
    return sum((number >> (3 * k + channel) & 1) << (7 - k) for k in range(8))


def heat(levels: np.ndarray) -> Image.Image:
    """A picture of levels 0 to 255, dark blue to bright yellow (cividis, even without colour vision)."""
    from matplotlib import colormaps

    return Image.fromarray((255 * colormaps["cividis"](np.arange(256))[:, :3]).astype(np.uint8)[levels])


def levels(values: np.ndarray) -> np.ndarray:
    """Numbers spread from 0 (lowest) to 255 (highest), uint8; infinite ones are taken as the ends."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    return np.rint(255 * (np.clip(values, low, high) - low) / (high - low)).astype(np.uint8)
