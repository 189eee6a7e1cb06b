"""Images and masks as datasets stores them: encoded files in its tables, files beside them, or arrays."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alseg.errors import UserMistake
from alseg.imagefiles import read_image, read_mask
from alseg.stamps import file_stamp


def picture(stored: Any, key: str) -> np.ndarray:
    """uint8 [H, W, 3] RGB, as `alseg.imagefiles.read_image` reads a file."""
    if isinstance(stored, Mapping):
        return read_image(_file(stored), f"the image {key}")
    if stored is None:
        raise UserMistake(f"Cannot read the image {key}: there is none.")
    return np.asarray(stored)


def mask_values(stored: Any, key: str) -> np.ndarray | None:
    """Integer [H, W], be it stored as [H, W, 1]; a palette's indices; None where there is no mask."""
    if stored is None:
        return None
    if isinstance(stored, Mapping):
        return read_mask(_file(stored), f"the mask of {key}")
    array = np.asarray(stored)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim == 2 and array.dtype.kind == "f" and bool((array == np.rint(array)).all()):
        return array.astype(np.int64)  # lists of numbers that passed through a table with gaps
    return array


def stamp(*stored: Any) -> str | None:
    """A text that is another once one of these, stored pictures or maps, is; see `Images.stamp`."""
    found: list[str | None] = []
    for one in stored:
        if isinstance(one, Mapping) and one.get("bytes") is None:
            found.append(file_stamp(Path(one["path"])))
        else:
            found.append(hashlib.sha256(one["bytes"] if isinstance(one, Mapping) else _content(one)).hexdigest())
    return None if None in found else repr(found)


def _content(array: Any) -> bytes:
    """What tells an array from others."""
    values = np.asarray(array)
    return b"none" if array is None else f"{values.dtype} {values.shape} ".encode() + values.tobytes()


def _file(stored: Mapping[str, Any]) -> Path | BinaryIO:
    content = stored.get("bytes")
    return Path(stored["path"]) if content is None else io.BytesIO(content)
