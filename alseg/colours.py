"""Colours for classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from alseg.values import Classes

Colour = tuple[int, int, int]


def palette(count: int) -> tuple[Colour, ...]:
    """The first colours of PASCAL VOC's palette: black, then as distinct as 8 bits allow.

    Bit k of a colour's highest bits is taken from bits 3 k to 3 k + 2 of its number (VOCdevkit's VOCcolormap).
    """
    return tuple((_channel(number, 0), _channel(number, 1), _channel(number, 2)) for number in range(count))


# Chosen one after the other from a grid of sRGB, each as far as possible from those before it in CIELAB, as seen
# with normal vision, protanopia, deuteranopia and (weighed a fifth less) tritanopia after Machado et al. (2009).
DISTINCT: tuple[Colour, ...] = (
    *((0, 114, 178), (230, 159, 0), (90, 60, 30), (0, 255, 210), (135, 0, 255), (165, 150, 90), (0, 60, 75)),
    *((195, 195, 255), (255, 225, 135), (120, 135, 135), (75, 0, 150), (180, 90, 255), (165, 75, 0)),
    *((135, 165, 255), (90, 30, 120), (210, 240, 0), (105, 195, 195), (150, 195, 150), (135, 105, 75)),
    *((225, 15, 195), (180, 240, 255), (135, 60, 120), (0, 30, 195), (210, 165, 75)),
)


def distinct(count: int) -> tuple[Colour, ...]:
    """Colours that differ, up to 24 of them without colour vision too."""
    return (*DISTINCT, *(colour for colour in palette(count + 1)[1:] if colour not in DISTINCT))[:count]


def packed(red: Any, green: Any, blue: Any) -> Any:
    """RGB as one number, or as an array of them."""
    return red << 16 | green << 8 | blue


def colours_of(classes: Classes) -> tuple[Colour, ...]:
    """A colour each: the dataset's own, or distinct ones."""
    return classes.colours or distinct(len(classes))


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
