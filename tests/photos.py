"""Images and masks on disk, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: tuple[int, int] = (32, 40), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(path)
    return path


def write_mask(path: Path, size: tuple[int, int] = (32, 40), values: tuple[int, ...] = (0, 1, 2)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = np.linspace(0, len(values), size[1], endpoint=False).astype(int)
    Image.fromarray(np.tile(np.array(values, np.uint8)[bands], (size[0], 1))).save(path)
    return path


def write_pair(images: Path, masks: Path, name: str, size: tuple[int, int] = (32, 40)) -> None:
    write_image(images / name, size, seed=len(name))
    write_mask((masks / name).with_suffix(".png"), size)
