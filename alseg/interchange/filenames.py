"""File names for images whose own names may hold anything."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from alseg.imagefiles import SUFFIXES

_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\\ud800-\udfff]')
LONGEST = 120  # bytes of a part, of 255 that file systems take; a name goes on with a digest and a suffix


def without_suffix(name: str) -> str:
    """A name less the suffix of an image file."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


def file_names(images: Mapping[str, str], suffix: str) -> dict[str, str]:
    """A relative path that every system takes for each image, no two of them alike.

    images: what each is called by. Nothing is read out of these names again: what is written holds the image's own.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    folders: set[str] = set()
    for image, called in images.items():
        parts = [_fit(part) for part in without_suffix(called).split("/") if part not in ("", ".")]
        path = "/".join(parts) or "image"
        number, name = 1, path + suffix
        while name.lower() in taken or name.lower() in folders or not taken.isdisjoint(_above(name)):
            number += 1
            name = f"{path.replace('/', '_')}-{number}{suffix}"
        taken.add(name.lower())
        folders |= _above(name)
        found[image] = name
    return found


def _above(name: str) -> set[str]:
    return {str(folder) for folder in PurePosixPath(name.lower()).parents}


def _fit(part: str) -> str:
    fit = _UNFIT.sub("_", part).rstrip(" .") or "_"
    fit = f"_{fit[1:]}" if fit.startswith(".") else fit  # hidden files are passed over
    if len(fit.encode()) > LONGEST:
        digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        fit = f"{fit.encode()[:LONGEST].decode(errors='ignore')}-{digest}"
    return fit
