"""A dataset as the rest of alseg sees it: whatever its plugin does wrong names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from alseg.calling import called, described
from alseg.errors import PROTOCOLS, AlsegError, UserMistake
from alseg.pieces import Piece
from alseg.protocols import Dataset, Images
from alseg.values import Classes


def open_dataset(piece: Piece, options: Mapping[str, Any]) -> Dataset:
    """The dataset of a piece; AlsegError where it lacks what every dataset has."""
    return NamedDataset(piece.build(options), piece.described())


class NamedDataset:
    """Another `Dataset`, whose errors name it, and its images' too."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name
        lacks = called(name, lambda: [part for part in ("classes", "splits", "images") if not hasattr(dataset, part)])
        if lacks:
            raise AlsegError(f"{name} has no {' and no '.join(lacks)}: see Dataset in {PROTOCOLS}.")
        self.classes: Classes = dataset.classes
        if not isinstance(self.classes, Classes):
            raise AlsegError(f"{name} gave {described(self.classes)} as its classes; it must give alseg.Classes.")
        self.splits: tuple[str, ...] = tuple(called(name, lambda: dataset.splits, "splits"))
        self.recipe: str = getattr(dataset, "recipe", "default")
        self.published: Mapping[str, int] = getattr(dataset, "published", {})

    def images(self, split: str) -> Images:
        """The images of a split."""
        where = f"images({split!r})"
        images = called(self._name, lambda: self._dataset.images(split), where)
        lacks = [part for part in ("__len__", "key", "image", "mask") if not hasattr(images, part)]
        if lacks:
            raise AlsegError(
                f"{self._name} gave {described(images)} in {where}, which has no {' and no '.join(lacks)}: see Images "
                f"in {PROTOCOLS}."
            )
        return NamedImages(images, self._name)


class NamedImages:
    """Other `Images`, whose errors name the dataset; what they give has the type and rank that it must have."""

    def __init__(self, images: Images, name: str) -> None:
        self._images, self._name = images, name
        if hasattr(images, "file"):  # where an image lies, for exports
            self.file: Any = images.file

    def __len__(self) -> int:
        return called(self._name, lambda: len(self._images), "len(images)")

    def key(self, i: int) -> str:
        """A stable name."""
        key = called(self._name, lambda: self._images.key(i), f"key({i})")
        if not isinstance(key, str) or not key:
            raise AlsegError(f"{self._name} gave {key!r} in key({i}); it must give a name, unique and not empty.")
        return key

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        image = called(self._name, lambda: np.asarray(self._images.image(i)), f"image({i})", _memory)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise UserMistake(
                f"{self._name} is wrong: the image {self.key(i)} is {described(image)}; it must be uint8 [H, W, 3], "
                "not empty."
            )
        return image

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W], or None."""
        mask = called(self._name, lambda: _array(self._images.mask(i)), f"mask({i})", _memory)
        if mask is not None and (mask.dtype.kind not in "iub" or mask.ndim != 2):
            raise UserMistake(
                f"{self._name} is wrong: the mask of {self.key(i)} holds {described(mask)}; it must hold whole class "
                "values [H, W], or be None."
            )
        return mask


def _array(value: Any) -> np.ndarray | None:
    return None if value is None else np.asarray(value)


def _memory(error: BaseException) -> bool:
    """Whoever reads the images says what to do."""
    return isinstance(error, MemoryError)
