"""Decoded images in one memory-mapped file, which runs of the same data share.

The file's name is a digest of what it holds, so that it can be found and never be out of date; the operating
system keeps in memory what is used of it, once for all processes. An index beside it says what files on the disk it
was decoded from, so that a run whose images have not changed since maps it and decodes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from alseg.errors import UserMistake
from alseg.paths import expanded
from alseg.writing import write_whole

LEAST = 2**26  # bytes from which a file is worth while
UNUSED_DAYS = 30
MASKS = (None, np.dtype(np.uint8).str, np.dtype(np.int32).str)  # types of masks that are decoded
OWN = re.compile(r"[0-9a-f]{32}\.(pixels|index)|\d+-\d{18,}\.tmp")  # names of files that are written here
Pixels = tuple[np.ndarray, np.ndarray | None]  # an image uint8 [H, W, 3] and its mask [H, W]


class Facts(NamedTuple):
    """What is known of an image that was read, but for its pixels."""

    height: int
    width: int
    mask: str | None  # the type of the mask's values
    present: Sequence[int]  # classes that a pixel has
    pixels_digest: str
    mask_digest: str | None

    def is_sound(self) -> bool:
        """Whether there can be such an image."""
        return self.mask in MASKS and min(self.height, self.width) > 0

    @property
    def bytes(self) -> int:
        """Of image and mask."""
        return self.height * self.width * (3 + (np.dtype(self.mask).itemsize if self.mask else 0))


def cache_folder(setting: str = "auto") -> Path | None:
    """Where the files are: the user's cache folder, another one, or nowhere ("none", or a user without a home)."""
    if not setting:
        raise UserMistake("The setting cache is empty: give a folder, auto or none.")
    if setting.lower() == "none":
        return None
    if setting.lower() == "auto":
        cache = Path(os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache"))
        return cache / "alseg" / "pixels" if cache.is_absolute() else None
    return expanded(setting)


class PixelFile:
    """Takes images one after the other, then gives them back from the file that holds the same ones.

    A disk that is full or cannot be written to is no error: `add` then says False and `mapped` gives None.
    As a context manager it leaves nothing unfinished behind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{os.getpid()}-{time.time_ns()}.tmp"
        self._file: BinaryIO | None = None
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            self._file = self._path.open("xb")
        self._facts: list[Facts] = []

    def __enter__(self) -> PixelFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def add(self, image: np.ndarray, mask: np.ndarray | None, facts: Facts) -> bool:
        """The next image and mask, and what is known of them."""
        if self._file is None:
            return False
        try:
            self._file.write(np.ascontiguousarray(image).data)
            if mask is not None:
                self._file.write(np.ascontiguousarray(mask).data)
        except OSError:
            self._drop()
            return False
        self._facts.append(facts)
        return True

    def mapped(self) -> list[Pixels] | None:
        """The images, from the file of this content that was there already if there was one."""
        if self._file is None:
            return None
        kept = self._folder / _name(self._facts)
        try:
            self._file.flush()
            if kept.exists() and kept.stat().st_size == self._path.stat().st_size:
                _used(kept)
            else:
                os.fsync(self._file.fileno())  # a name stands for whole content, after a power cut too
                self._path.replace(kept)
            return _views(kept, self._facts)
        except OSError:
            return None

    def _drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # closing flushes, which a full disk refuses
                self._file.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        self._file = None


def remember(folder: Path, identity: str, facts: Sequence[Facts]) -> None:
    """That what `identity` stands for was read, is in order, and lies in the file of these facts."""
    with contextlib.suppress(OSError):
        write_whole(folder / f"{identity}.index", json.dumps(facts).encode())


def recall(folder: Path, identity: str, count: int) -> tuple[list[Facts], list[Pixels]] | None:
    """What was remembered of so many images, if it is still there."""
    index = folder / f"{identity}.index"
    try:
        facts = [Facts(*line) for line in json.loads(index.read_bytes())]
        if len(facts) != count or not all(line.is_sound() for line in facts):
            return None
        pixels = folder / _name(facts)
        if pixels.stat().st_size != sum(line.bytes for line in facts):
            return None
        found = facts, _views(pixels, facts)
    except (OSError, ValueError, TypeError, RecursionError):  # not there, or not an index
        return None
    _used(index)
    _used(pixels)
    with contextlib.suppress(OSError):
        _sweep(folder)
    return found


def _name(facts: Sequence[Facts]) -> str:
    return f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]}.pixels"


def _used(path: Path) -> None:
    with contextlib.suppress(OSError):  # another user's file
        os.utime(path)


def _views(path: Path, facts: Sequence[Facts]) -> list[Pixels]:
    # Copy on write: torch wants arrays that it may write to, and nobody does. Without a reservation of memory
    # for such copies, which would fail where the images are larger than memory.
    with path.open("rb") as file:
        flags = mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        mapping = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pixels, start, found = np.frombuffer(mapping, np.uint8), 0, []

    def view(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
        nonlocal start
        size = int(np.prod(shape)) * kind.itemsize
        part = pixels[start : start + size].view(kind).reshape(shape)
        start += size
        return part

    for line in facts:
        image = view((line.height, line.width, 3), np.dtype(np.uint8))
        found.append((image, view((line.height, line.width), np.dtype(line.mask)) if line.mask else None))
    return found


def is_worth_while(folder: Path | None, size: int) -> bool:
    """Whether so many bytes should go into a file: not few, and at most a quarter of the disk's free space."""
    if folder is None or size < LEAST:
        return False
    place = next((path for path in (folder, *folder.parents) if path.exists()), None)
    try:
        return place is not None and size <= shutil.disk_usage(place).free // 4
    except OSError:
        return False


def _sweep(folder: Path) -> None:
    """Take away files unused for a month, and what a killed process left unfinished; nobody else's files."""
    now = time.time()
    for path in folder.iterdir():
        days = 1 if path.suffix == ".tmp" else UNUSED_DAYS
        if OWN.fullmatch(path.name):
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > days * 86400:
                    path.unlink()
