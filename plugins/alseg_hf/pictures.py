"""Images and masks as datasets stores them: encoded files in its tables, files beside them, or arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from alseg.errors import AlsegError, UserMistake


def picture(stored: Any, key: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB: EXIF orientation applied, transparency laid on white, of 16 bits the upper 8."""
    return _decoded(stored, f"the image {key}", mask=False)


def mask_values(stored: Any, key: str) -> np.ndarray | None:
    """Integer [H, W]; a palette's indices; None where there is no mask."""
    return None if stored is None else _decoded(stored, f"the mask of {key}", mask=True)


def _decoded(stored: Any, what: str, mask: bool) -> np.ndarray:
    try:
        if not isinstance(stored, Mapping):
            return _array(stored, mask)
        source = stored.get("bytes")
        with Image.open(Path(stored["path"]) if source is None else io.BytesIO(source)) as image:
            # phones store a second view behind a JPEG; Pillow calls that MPO
            if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
                raise AlsegError("it holds several pictures")
            if mask and image.format in ("JPEG", "MPO"):
                raise AlsegError("a mask must not be a JPEG, which changes class values")
            turned = ImageOps.exif_transpose(image)
            return _values(turned) if mask else _rgb(turned)
    # what a decoder raises for broken content is not limited to OSError
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = (lines[0] if lines else type(error).__name__).rstrip(".")
        raise UserMistake(f"Cannot read {what}: {reason}.") from error


def _array(stored: Any, mask: bool) -> np.ndarray:
    if stored is None:
        raise AlsegError("there is none")
    array = np.asarray(stored)
    if mask and array.ndim == 2 and array.dtype.kind == "f" and bool((array == np.rint(array)).all()):
        return array.astype(np.int64)  # lists of numbers that passed through a table with gaps
    return array


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.getextrema()[1] <= 65535):  # type: ignore[operator]
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise AlsegError("it has 32 bits a channel; 8 or 16 are read")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.asarray(image.convert("RGB"))


def _values(image: Image.Image) -> np.ndarray:
    if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise AlsegError(f"it is a {image.mode} picture; a mask holds one class value a pixel")
    values = np.asarray(image)
    return values.astype(np.uint8) if values.dtype == bool else values
