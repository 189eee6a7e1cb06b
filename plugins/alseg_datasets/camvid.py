"""CamVid (Brostow et al., 2009) in the layout of SegNet's copy: 11 classes, void 11, 360 x 480."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from alseg.errors import UserMistake
from alseg.imagefiles import FORMATS
from alseg.values import Classes
from alseg_datasets.files import SPLITS, FileImages, ImageFile, existing_folder, image_files

CLASSES = Classes(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    void=11,
    colours=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)


class CamVid:
    """Folders train, val and test of images, with masks of the same stems in trainannot and so on."""

    classes = CLASSES
    recipe = "camvid"
    published = MappingProxyType({"train": 367, "val": 101, "test": 233})

    def __init__(self, data: Path) -> None:
        self._root = existing_folder(data, "CamVid's")
        if not (self._root / "train").is_dir():
            raise UserMistake(f"{data} has no folder train: CamVid has train, trainannot, val, valannot and so on.")
        self.splits = tuple(split for split in SPLITS if (self._root / split).is_dir())

    def images(self, split: str) -> FileImages:
        """The images of a split, by name."""
        if split not in self.splits:
            raise UserMistake(f"{self._root} has no folder {split}.")
        folder, masks = self._root / split, self._root / f"{split}annot"
        files = [ImageFile(path.stem, path, masks / f"{path.stem}.png") for path in image_files(folder)]
        if not files:
            raise UserMistake(f"The split {split} is empty: {folder} holds no {FORMATS} image.")
        return FileImages(files, reading="as stored")
