"""PASCAL VOC 2012 segmentation (Everingham et al., 2012) as distributed: 20 classes and background, void 255.

torchvision.datasets.VOCSegmentation is not used: it wants the folder above VOCdevkit and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from alseg.colours import palette
from alseg.errors import UserMistake
from alseg.values import Classes
from alseg_datasets.files import SPLITS, FileImages, ImageFile, existing_folder

NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
CLASSES = Classes(NAMES, void=255, colours=palette(len(NAMES)))
LISTS = Path("ImageSets") / "Segmentation"


class Voc12:
    """JPEGImages, SegmentationClass and ImageSets/Segmentation/{train,val}.txt under VOCdevkit/VOC2012."""

    classes = CLASSES
    recipe = "voc12"
    published = MappingProxyType({"train": 1464, "val": 1449, "test": 1456})

    def __init__(self, data: Path) -> None:
        given = existing_folder(data, "VOC's")
        places = (given, given / "VOC2012", given / "VOCdevkit" / "VOC2012")
        root = next((place for place in places if (place / LISTS / "train.txt").is_file()), None)
        if root is None:
            raise UserMistake(
                f"{data} has no {LISTS / 'train.txt'}, nor has VOC2012 or VOCdevkit/VOC2012 in it: give the folder "
                "VOCdevkit with --data."
            )
        self._root = root
        # test.txt comes with the test images, whose masks are not public
        self.splits = tuple(split for split in SPLITS if (root / LISTS / f"{split}.txt").is_file())

    def images(self, split: str) -> FileImages:
        """The images of a split in the order of its list."""
        if split not in self.splits:
            raise UserMistake(f"{self._root / LISTS} has no {split}.txt.")
        path = self._root / LISTS / f"{split}.txt"
        names = path.read_text("utf-8", "replace").split()
        if not names:
            raise UserMistake(f"The split {split} is empty: {path} names no image.")
        images, masks = self._root / "JPEGImages", self._root / "SegmentationClass"
        return FileImages(
            [ImageFile(name, images / f"{name}.jpg", masks / f"{name}.png") for name in names], reading="as stored"
        )
