"""Colours of classes that have none: distinct with and without colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageCms

from alseg.colours import DISTINCT, colours_of
from alseg.values import Classes

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
}


def seen(colours, matrix) -> np.ndarray:
    """CIELAB [n, 3] of what an eye makes of sRGB colours, by Pillow's colour management."""
    values = np.array(colours) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    other = (linear @ np.array(matrix).T).clip(0, 1)
    back = np.where(other <= 0.0031308, other * 12.92, 1.055 * other ** (1 / 2.4) - 0.055)
    image = Image.fromarray(np.rint(255 * back).astype(np.uint8)[None])
    change = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    pixels = np.asarray(ImageCms.applyTransform(image, change))[0].astype(np.float64)
    return np.stack(
        [pixels[:, 0] / 2.55, *(np.where(pixels[:, i] > 127, pixels[:, i] - 256, pixels[:, i]) for i in (1, 2))], 1
    )


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize(("count", "least"), [(8, 25), (24, 10)])
def test_colours_differ_to_every_eye(sight, count, least):
    found = seen(DISTINCT[:count], SIGHT[sight])
    assert min(np.linalg.norm(a - b) for a, b in combinations(found, 2)) > least


@pytest.mark.parametrize("count", [1, 24, 25, 60, 300])
def test_each_class_has_a_colour_of_its_own(count):
    colours = colours_of(Classes(tuple(map(str, range(count))), -1))
    assert len(colours) == count and len(set(colours)) == count


def test_a_datasets_own_colours_stay():
    own = ((1, 2, 3), (4, 5, 6))
    assert colours_of(Classes(("a", "b"), 255, own)) == own
