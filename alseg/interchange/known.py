"""What a dataset knows: its classes, and its images by whatever name another program gives them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

from alseg.errors import UserMistake
from alseg.interchange.fields import shown
from alseg.interchange.filenames import without_suffix
from alseg.protocols import Dataset, Images
from alseg.values import Classes

_LOCAL = "/local-files/?d="  # before the paths of files that Label Studio reads where they lie
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # what Label Studio puts before the names of files it was given


class Known:
    """A dataset's images, found by the names of their files or by key, else by folders and stem.

    images: by split; `train` is what unnamed stacks of masks are of. sizes: of the first images. prefers_train:
    whether a name that may be a training image's as well as another one's is the former's.
    """

    def __init__(
        self,
        classes: Classes,
        images: Mapping[str, Images],
        sizes: Sequence[tuple[int, int]] = (),
        prefers_train: bool = False,
    ) -> None:
        self.classes = classes
        self._train = images.get("train")
        self._preferred = frozenset(self.train_keys()) if prefers_train else frozenset()
        self._place: dict[str, tuple[Images, int]] = {}
        for split in images.values():
            for i in range(len(split)):
                self._place.setdefault(split.key(i), (split, i))
        self._sizes = dict(zip(self._place, sizes, strict=False))
        self._files = {
            key: _path(str(split.file(i))) for key, (split, i) in self._place.items() if hasattr(split, "file")
        }
        self._called: dict[str, set[str]] = {}  # by the names of files, with their suffixes
        for key, file in self._files.items():
            self._called.setdefault("".join(file[-1:]), set()).add(key)
        self._ends: dict[tuple[str, ...], set[str]] = {}
        for key in self._place:
            for parts in _stemmed(_path(key), self._files.get(key)):
                for start in range(len(parts)):
                    self._ends.setdefault(parts[start:], set()).add(key)

    @classmethod
    def of(cls, dataset: Dataset) -> Known:
        """All splits of a dataset."""
        return cls(dataset.classes, {split: dataset.images(split) for split in dataset.splits})

    def train_keys(self) -> list[str]:
        """The training images' names, sorted as PixelPick sorts its files."""
        return [] if self._train is None else sorted(self._train.key(i) for i in range(len(self._train)))

    def match(self, name: str) -> str | None:
        """The key of an image that is called `name` elsewhere, None where there is none.

        In this order: the file whose path ends so, suffix included; the key itself; the key that agrees with the
        name's last folders and stem, the more of them the better. UserMistake where two agree as well, or one's file
        and another's key.
        """
        path = _path(name)
        last = "".join(path[-1:])
        called = self._called.get(last) or self._called.get(_uploaded(last), set())
        whole = {key for key in called if self._files[key][-len(path) :] == path}
        if name in self._place:
            if other := sorted(whole - {name}):
                raise UserMistake(
                    f"{shown(name)} is one image's key and the name of another's file, whose key is "
                    f"{shown(other[0])}: rename one of the two files."
                )
            return name
        if len(whole := whole & self._preferred or whole) == 1:
            return next(iter(whole))
        parts = _parts(name)
        for start in range(len(parts)):
            found = self._ends.get(parts[start:]) or self._ends.get((_uploaded(parts[start]), *parts[start + 1 :]))
            found = found and (found & called or found)
            found = found and (found & self._preferred or found)
            if found and len(found) > 1:
                first, second = sorted(found)[:2]
                raise UserMistake(f"The image {shown(name)} may be {shown(first)} or {shown(second)}: use their keys.")
            if found:
                return next(iter(found))
        return None

    def size(self, key: str) -> tuple[int, int]:
        """An image's height and width; decoded once."""
        if key not in self._sizes:
            images, i = self._place[key]
            height, width = images.image(i).shape[:2]
            self._sizes[key] = height, width
        return self._sizes[key]

    def mask(self, key: str) -> np.ndarray | None:
        """An image's class values [H, W], None where it has no mask."""
        images, i = self._place[key]
        return images.mask(i)


def may_be_one(first: str, second: str) -> bool:
    """Whether two names may be an image's: with and without its suffix, or more or fewer of its folders."""
    short, long = sorted((_parts(first), _parts(second)), key=len)
    return long[len(long) - len(short) :] == short


def _path(name: str) -> tuple[str, ...]:
    """A name's folders and last part, in Unicode's composed form."""
    name = name.rpartition(_LOCAL)[2]
    path = PureWindowsPath(name) if "\\" in name and "/" not in name else PurePosixPath(name)
    return tuple(unicodedata.normalize("NFC", part) for part in path.parts if part not in (path.anchor, ".."))


def _parts(name: str) -> tuple[str, ...]:
    """A name's folders and stem."""
    path = _path(name)
    return (*path[:-1], without_suffix(path[-1])) if path else ()


def _stemmed(key: tuple[str, ...], file: tuple[str, ...] | None) -> set[tuple[str, ...]]:
    """A key's folders with its stem and with its file's.

    A key that is its file's stem has no suffix of its own, as photo.jpg of photo.jpg.png.
    """
    stems = {without_suffix(part) for part in (file or ())[-1:]}
    stems |= {without_suffix(part) for part in key[-1:] if part not in stems}
    return {(*key[:-1], stem) for stem in stems}


def _uploaded(part: str) -> str:
    return _UPLOADED.sub("", part, count=1) if _UPLOADED.match(part) else part
