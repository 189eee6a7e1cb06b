"""Cityscapes (Cordts et al., CVPR 2016) as distributed: the 19 classes that are evaluated, void 255, 1024 x 2048.

The table of labels is torchvision's; its dataset is not used, because it unpacks archives where a folder is
missing and lists files in the order of the file system.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
from torchvision.datasets.cityscapes import Cityscapes as Published

from alseg.errors import UserMistake
from alseg.imagefiles import read_mask
from alseg.values import Classes
from alseg_datasets.files import SPLITS, FileImages, ImageFile, existing_folder

VOID = 255
EVALUATED = sorted((c for c in Published.classes if 0 <= c.train_id < VOID), key=lambda c: c.train_id)
CLASSES = Classes(
    names=tuple(c.name for c in EVALUATED),
    void=VOID,
    colours=tuple(c.color for c in EVALUATED),
)
LICENSE_PLATE = 255  # its id -1 in a uint8 mask
TRAIN_IDS = np.full(256, VOID, np.uint8)  # by id
TRAIN_IDS[[c.id for c in EVALUATED]] = [c.train_id for c in EVALUATED]
HIGHEST_ID = max(c.id for c in Published.classes)
IMAGE = "_leftImg8bit.png"


class Cityscapes:
    """leftImg8bit and gtFine, each with train, val and test, each with a folder a city."""

    classes = CLASSES
    recipe = "cityscapes"
    published = MappingProxyType({"train": 2975, "val": 500, "test": 1525})

    def __init__(self, data: Path) -> None:
        root = existing_folder(data, "Cityscapes'")
        self._images, self._masks = root / "leftImg8bit", root / "gtFine"
        if not (self._images / "train").is_dir():
            raise UserMistake(f"{data} has no folder leftImg8bit/train: Cityscapes has leftImg8bit and gtFine.")
        self.splits = tuple(split for split in SPLITS if (self._images / split).is_dir())

    def images(self, split: str) -> FileImages:
        """The images of a split by name; those of test have no mask, since their public labels are all void."""
        if split not in self.splits:
            raise UserMistake(f"{self._images} has no folder {split}.")
        found = sorted((self._images / split).glob(f"*/*{IMAGE}"))
        if not found:
            raise UserMistake(f"The split {split} is empty: {self._images / split} holds no folder of files *{IMAGE}.")
        return FileImages([self._file(split, path) for path in found], read_train_ids, reading="train ids")

    def _file(self, split: str, path: Path) -> ImageFile:
        key = path.name.removesuffix(IMAGE)
        mask = self._masks / split / path.parent.name / f"{key}_gtFine_labelIds.png"
        return ImageFile(key, path, None if split == "test" else mask)


def read_train_ids(path: Path) -> np.ndarray:
    """The classes 0 to 18 and void, uint8 [H, W], of a file *_gtFine_labelIds.png."""
    ids = read_mask(path)
    wrong = (ids > HIGHEST_ID) & (ids != LICENSE_PLATE)
    if wrong.any():
        raise UserMistake(f"The mask {path} holds {ids[wrong][0]}: Cityscapes' label ids go from 0 to {HIGHEST_ID}.")
    return TRAIN_IDS[ids]
