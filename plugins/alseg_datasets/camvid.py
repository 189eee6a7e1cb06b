"""CamVid (Brostow et al., 2009) in the layout of SegNet's copy: 11 classes, void 11, 360 x 480."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alseg.errors import UserMistake
from alseg.values import Classes
from alseg_datasets.files import image_files, read_image, read_mask

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

    def __init__(self, data: Path) -> None:
        root = Path(data).expanduser()
        if not root.is_dir():
            raise UserMistake(f"There is no folder {data}: give CamVid's folder with --data.")
        self._root = root.resolve()
        if not (root / "train").is_dir():
            raise UserMistake(f"{data} has no folder train: CamVid has train, trainannot, val, valannot and so on.")
        self.splits = tuple(split for split in ("train", "val", "test") if (root / split).is_dir())

    def images(self, split: str) -> CamVidImages:
        """The images of a split, by name."""
        if split not in self.splits:
            raise UserMistake(f"{self._root} has no folder {split}.")
        folder = self._root / split
        files = image_files(folder)
        if not files:
            raise UserMistake(f"The split {split} is empty: {folder} holds no PNG, JPEG or WebP image.")
        return CamVidImages(files, self._root / f"{split}annot")


class CamVidImages:
    """One split: images, and PNG masks of the same stem where there are any."""

    def __init__(self, files: list[Path], masks: Path) -> None:
        self._files = files
        self._masks = masks

    def __len__(self) -> int:
        return len(self._files)

    def key(self, i: int) -> str:
        """The file's stem."""
        return self._files[i].stem

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return read_image(self._files[i])

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W]."""
        path = self._masks / f"{self._files[i].stem}.png"
        return read_mask(path) if path.exists() else None
