"""Images and masks in folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from alseg.errors import UserMistake

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; two of one stem are refused."""
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    except OSError as error:
        raise UserMistake(f"Cannot read the folder {folder}: {error.strerror}.") from error
    stems: dict[str, Path] = {}
    for path in found:
        if path.stem in stems:
            raise UserMistake(f"{folder} holds {stems[path.stem].name} and {path.name}: keep one of the two.")
        stems[path.stem] = path
    return found


def read_image(path: Path) -> np.ndarray:
    """An image file as uint8 [H, W, 3] RGB."""
    return _read(path, "RGB")


def read_mask(path: Path) -> np.ndarray:
    """A mask file of class values, integer [H, W]; a palette's indices, not its colours."""
    mask = _read(path, None)
    if mask.ndim != 2:
        raise UserMistake(f"The mask {path} has {mask.shape[2]} channels; it must hold one class value a pixel.")
    return mask


def _read(path: Path, mode: str | None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode) if mode else image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = "it is not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UserMistake(f"Cannot read {path}: {reason.rstrip('.')}.") from error
