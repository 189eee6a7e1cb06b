"""A dataset as the rest of alseg sees it: whatever its plugin does wrong names it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from alseg.calling import called, described
from alseg.errors import PROTOCOLS, AlsegError, UserMistake
from alseg.pieces import Piece
from alseg.plugins import FIRST_PARTY
from alseg.protocols import Images
from alseg.stamps import besides
from alseg.values import Classes

T = TypeVar("T")
SPLITS = ("train", "val", "test")
NONE: Mapping[str, Any] = MappingProxyType({})


def open_dataset(piece: Piece, options: Mapping[str, Any]) -> NamedDataset:
    """The dataset of a piece; AlsegError where it lacks what every dataset has."""
    return NamedDataset(piece.build(options), piece.described(), piece.plugin.distribution == FIRST_PARTY, options)


def whose(dataset: Any) -> str:
    """How a mistake in what a dataset gives begins: with its name; empty for alseg's own, which give a user's files."""
    return str(getattr(dataset, "whose", ""))


class NamedDataset:
    """Another `Dataset`, whose errors name it, and its images' too.

    own: it is alseg's, so that what is wrong with an image is wrong with its file. options: it was made with.
    """

    def __init__(self, dataset: Any, name: str, own: bool = False, options: Mapping[str, Any] = NONE) -> None:
        self._dataset, self._name, self._options, self.whose = dataset, name, options, "" if own else name
        lacks = called(name, lambda: [part for part in ("classes", "splits", "images") if not hasattr(dataset, part)])
        if lacks:
            raise AlsegError(f"{name} has no {' and no '.join(lacks)}: see Dataset in {PROTOCOLS}.")
        self.classes: Classes = dataset.classes
        if not isinstance(self.classes, Classes):
            raise AlsegError(f"{name} gave {described(self.classes)} as its classes; it must give alseg.Classes.")
        if problem := _problem(self.classes):
            raise AlsegError(f"{name} gave {problem}.")
        splits = called(name, lambda: dataset.splits, "splits")
        if isinstance(splits, str) or not isinstance(splits, Sequence) or not all(isinstance(s, str) for s in splits):
            raise AlsegError(f'{name} gave {splits!r:.80} as its splits; it must give names, such as ("train", "val").')
        strange = next((split for split in splits if split not in SPLITS), None)
        if strange is not None:
            raise AlsegError(f'{name} has a split {strange!r}, which is none of "train", "val" and "test": rename it.')
        self.splits: tuple[str, ...] = tuple(splits)
        self.recipe: str = called(name, lambda: getattr(dataset, "recipe", "default"), "recipe")
        if not isinstance(self.recipe, str):
            raise AlsegError(f"{name} gave {self.recipe!r:.80} as its recipe; it must give a registered recipe's name.")
        self.published: Mapping[str, int] = called(name, lambda: getattr(dataset, "published", {}), "published")
        if not isinstance(self.published, Mapping):
            raise AlsegError(f'{name} gave {self.published!r:.80} as published; it must be such as {{"train": 367}}.')

    def images(self, split: str) -> Images:
        """The images of a split."""
        where = f"images({split!r})"
        images = called(self._name, lambda: self._dataset.images(split), where, reads=True)
        lacks = [part for part in ("__len__", "key", "image", "mask") if not hasattr(images, part)]
        if lacks:
            raise AlsegError(
                f"{self._name} gave {described(images)} in {where}, which has no {' and no '.join(lacks)}: see Images "
                f"in {PROTOCOLS}."
            )
        return NamedImages(images, self._name, besides(images, self._dataset, self._options))

    def passed_over(self) -> dict[str, list[str]]:
        """What it says that lies among its files and is not read: what it is -> names."""
        if not hasattr(self._dataset, "passed_over"):
            return {}
        said = called(self._name, lambda: self._dataset.passed_over(), "passed_over()", reads=True)
        if not isinstance(said, Mapping) or not all(isinstance(names, list | tuple) for names in said.values()):
            raise AlsegError(
                f'{self._name} gave {said!r:.80} in passed_over(); it must be such as {{"masks without an image": []}}.'
            )
        return {str(kind): [str(name) for name in names] for kind, names in said.items() if names}


class NamedImages:
    """Other `Images`, whose errors name the dataset; what they give has the type and rank that it must have.

    besides: what decides, besides their stamps, how they are read; None: their stamps are not passed on.
    """

    def __init__(self, images: Images, name: str, besides: str | None = None) -> None:
        self._images, self._name, self._besides = images, name, besides
        if hasattr(images, "file"):  # where an image lies, for exports
            self.file: Any = images.file
        if besides is not None:
            self.stamp: Any = self._stamp

    def __len__(self) -> int:
        return called(self._name, lambda: len(self._images), "len(images)", reads=True)

    def key(self, i: int) -> str:
        """A stable name."""
        key = called(self._name, lambda: self._images.key(i), f"key({i})", reads=True)
        if not isinstance(key, str) or not key:
            raise AlsegError(f"{self._name} gave {key!r} in key({i}); it must give a name, unique and not empty.")
        return key

    def _stamp(self, i: int) -> str | None:
        stamp = called(self._name, lambda: self._images.stamp(i), f"stamp({i})", reads=True)  # type: ignore[attr-defined]
        if stamp is not None and not isinstance(stamp, str):
            raise AlsegError(f"{self._name} gave {described(stamp)} in stamp({i}); it must give a string, or None.")
        return None if stamp is None else f"{stamp} {self._besides}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        image = self._read(i, lambda: np.asarray(self._images.image(i)), "image")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserMistake(
                f"{self._name} is wrong: the image {self.key(i)} is {described(image)}; it must be uint8 [H, W, 3], "
                "not empty."
            )
        return image

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W], or None."""
        mask = self._read(i, lambda: _array(self._images.mask(i)), "mask")
        if mask is not None and (mask.dtype.kind not in "iub" or mask.ndim != 2):
            raise UserMistake(
                f"{self._name} is wrong: the mask of {self.key(i)} holds {described(mask)}; it must hold whole class "
                "values [H, W], or be None."
            )
        return mask

    def _read(self, i: int, read: Callable[[], T], what: str) -> T:
        """What is read of an image; a file that cannot be read is named, by what the image is called if not by itself.

        Not every error of a file says which one it is: Pillow's "image file is truncated" does not.
        """
        nameless: list[OSError] = []

        def watched() -> T:
            try:
                return read()
            except OSError as error:
                nameless.extend([] if error.filename else [error])
                raise

        try:
            return called(self._name, watched, f"{what}({i})", _memory, reads=True)
        except UserMistake as error:
            if not nameless:
                raise
            place = self.file(i) if hasattr(self, "file") else self.key(i)
            raise UserMistake(f"{str(error).rstrip('.')}; it is of the image {place}.") from nameless[0]


def _problem(classes: Classes) -> str | None:
    """What in its classes is of another type than it must be."""
    names, void, colours = classes.names, classes.void, classes.colours
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) and name for name in names):
        return f'{names!r:.80} as the names of its classes; they must be strings, such as ("road", "sky")'
    if isinstance(void, bool) or not isinstance(void, int | np.integer):
        return f"{void!r:.80} as the void value of its classes; it must be a whole number, such as 255"
    for colour in colours:
        if (
            not isinstance(colour, tuple | list | np.ndarray)
            or len(colour) != 3
            or not all(_is_byte(part) for part in colour)
        ):
            return f"{colour!r:.80} as the colour of a class; it must be three numbers from 0 to 255"
    return None


def _is_byte(value: Any) -> bool:
    return isinstance(value, int | np.integer) and 0 <= int(value) <= 255


class ReadOnly:
    """`Images` that whoever reads them cannot change for others, who read the same arrays."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def key(self, i: int) -> str:
        """A stable name."""
        return self._images.key(i)

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return _locked(self._images.image(i))

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W], or None."""
        mask = self._images.mask(i)
        return None if mask is None else _locked(mask)


def _locked(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _array(value: Any) -> np.ndarray | None:
    return None if value is None else np.asarray(value)


def _memory(error: BaseException) -> bool:
    """Whoever reads the images says what to do."""
    return isinstance(error, MemoryError)
