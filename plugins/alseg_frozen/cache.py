"""Features of images, kept in memory and on disk under the content of the image that they are of.

A file's name is a digest of the image and of all that its features depend on, so that it is never out of date;
processes share the folder without a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import struct
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alseg.engine.pixelcache import UNUSED_DAYS, cache_folder

DAY = 86400
SUFFIX = ".features"
HEADER = struct.Struct("<4I")  # D, h, w and the CRC-32 of the numbers
# what is written here: the folder may be a user's, who keeps other files there
OWN = re.compile(r"[0-9a-f]{32}/([0-9a-f]{2})/\1[0-9a-f]{30}-[0-9]+x[0-9]+\.(features|(?P<pid>[0-9]+)\.tmp)")
FREE_SHARE = 10  # nothing is written where less than one in so many bytes of the disk is free
MOST_SEEN = 2**20  # keys that are remembered as seen once


def features_folder(setting: str) -> Path | None:
    """Where the files are: beside the decoded images in the user's cache folder, another folder, or nowhere."""
    folder = cache_folder(setting)
    return folder.with_name("features") if setting == "auto" and folder is not None else folder


class FeatureStore:
    """Features float16 [D, h, w] by key: the last used ones in `memory` bytes, and files in `folder`.

    What is computed for an image that may never come again, such as an augmented one, is written when the image
    comes a second time. A disk that is full or cannot be written to is no error.
    """

    def __init__(self, memory: int, folder: Path | None) -> None:
        self._memory, self._folder = memory, folder
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0
        self._seen: set[str] = set()
        self._written: set[str] = set()
        if folder is not None:
            _sweep(folder)

    def __deepcopy__(self, memo: object) -> FeatureStore:
        """A model's copy looks up in the same store."""
        return self

    def get(self, key: str, device: torch.device, compute: Callable[[], Tensor], lasting: bool) -> Tensor:
        """The features of a key on the device; lasting: whether they are worth a file at once."""
        found = self._kept.get(key)
        if found is None:
            found = self._read(key, device)
        if found is None:
            found = compute()
        self._keep(key, found)
        if self._folder is not None and key not in self._written:
            if lasting or key in self._seen:
                self._write(key, found)
            else:
                if len(self._seen) >= MOST_SEEN:
                    self._seen.clear()
                self._seen.add(key)
        return found.to(device)

    def _keep(self, key: str, features: Tensor) -> None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return
        size = features.numel() * features.element_size()
        if size > self._memory:
            return
        self._kept[key] = features
        self._bytes += size
        while self._bytes > self._memory:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.numel() * dropped.element_size()

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        identity, _, image = key.partition("-")
        return self._folder / identity / image[:2] / f"{image}{SUFFIX}"

    def _read(self, key: str, device: torch.device) -> Tensor | None:
        if self._folder is None:
            return None
        path = self._path(key)
        try:
            content = path.read_bytes()
            depth, height, width, check = HEADER.unpack_from(content)
            numbers = np.frombuffer(bytearray(content), np.float16, offset=HEADER.size)
        except (OSError, ValueError, struct.error):
            return None
        # a power cut may leave a whole name with half the content
        if numbers.size != depth * height * width or zlib.crc32(numbers.data) != check:
            return None
        with contextlib.suppress(OSError):  # another user's file
            if time.time() - path.stat().st_mtime > DAY:
                os.utime(path)  # used today
        self._written.add(key)
        return torch.from_numpy(numbers.reshape(depth, height, width)).to(device)

    def _write(self, key: str, features: Tensor) -> None:
        path = self._path(key)
        fresh = path.with_suffix(f".{os.getpid()}.tmp")
        numbers = features.cpu().contiguous().numpy()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            usage = shutil.disk_usage(path.parent)
            if usage.free < usage.total // FREE_SHARE + numbers.nbytes:
                return
            with fresh.open("wb") as file:
                file.write(HEADER.pack(*numbers.shape, zlib.crc32(numbers.data)))
                file.write(numbers.data)
            fresh.replace(path)
            self._written.add(key)
            self._seen.discard(key)
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)


_STORES: dict[tuple[int, Path | None], FeatureStore] = {}


def store_of(memory: int, folder: Path | None) -> FeatureStore:
    """This process's store, which the models of all rounds share."""
    if (memory, folder) not in _STORES:
        _STORES[memory, folder] = FeatureStore(memory, folder)
    return _STORES[memory, folder]


def image_keys(images: Tensor) -> list[str]:
    """A digest of each image float32 [B, 3, H, W], whatever its strides; on a GPU it is computed there."""
    rows = images.detach().float().permute(0, 2, 3, 1).contiguous()
    shape = f"{rows.shape[1]}x{rows.shape[2]}"
    if rows.device.type == "cpu":
        return [f"{hashlib.sha256(row.numpy().data).hexdigest()[:32]}-{shape}" for row in rows]
    sums = torch.stack(list(_sums(rows.flatten(1).view(torch.int32).long())), 1)
    return [f"{one % 2**64:016x}{other % 2**64:016x}-{shape}" for one, other in sums.tolist()]


def _sums(bits: Tensor) -> Iterator[Tensor]:
    """Two sums [B] modulo 2^64 of numbers [B, N], each mixed with its place: equal by chance once in 2^128."""
    place = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    for salt in (0x1E3779B97F4A7C15, 0x51A2B3C4D5E6F789):
        yield _mixed(_mixed(bits + place * salt) + salt).sum(1)


def _mixed(x: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele et al., OOPSLA 2014) on int64 as if they were unsigned."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ ((x >> 27) & (2**37 - 1))) * (0x94D049BB133111EB - 2**64)
    return x ^ ((x >> 31) & (2**33 - 1))


def _sweep(folder: Path) -> None:
    """Once a day take away files unused for a month, and what a killed process left unfinished."""
    now, mark = time.time(), folder / "swept"
    with contextlib.suppress(OSError):
        if mark.exists() and now - mark.stat().st_mtime < DAY:
            return
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    for path in folder.glob("*/*/*"):
        own = OWN.fullmatch(path.relative_to(folder).as_posix())
        if own:
            days = UNUSED_DAYS if own["pid"] is None else 1
            with contextlib.suppress(OSError):
                if now - path.stat().st_mtime > days * DAY:
                    path.unlink()
