"""The dataset `my-piece`: alseg run --dataset my-piece --data DIR."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alseg import Classes, UserMistake, hookimpl
from alseg.imagefiles import read_image, read_mask

ALSEG_API_VERSION = 1
CLASSES = Classes(names=("background", "thing"), void=255)


class MyPiece:
    """DIR/train/*.png and DIR/val/*.png; a mask lies beside its image as NAME.mask.png."""

    classes = CLASSES
    recipe = "folder"  # the registered recipe that suits it: `alseg plugins --kind recipe`

    def __init__(self, data: Path) -> None:
        self._data = data
        self.splits = tuple(split for split in ("train", "val", "test") if (data / split).is_dir())
        if "train" not in self.splits:
            raise UserMistake(f"{data} has no folder train: my-piece reads DIR/train/*.png.")

    def images(self, split: str) -> MyPieceImages:
        """The images of a split."""
        return MyPieceImages(self._data / split)


class MyPieceImages:
    """One split; files are opened when they are asked for, from several threads."""

    def __init__(self, folder: Path) -> None:
        self._files = sorted(path for path in folder.glob("*.png") if not path.name.endswith(".mask.png"))

    def __len__(self) -> int:
        return len(self._files)

    def key(self, i: int) -> str:
        """A stable, unique name of image i."""
        return self._files[i].name

    def image(self, i: int) -> np.ndarray:
        """Image i, uint8 [H, W, 3] RGB, turned as its EXIF says."""
        return read_image(self._files[i])

    def mask(self, i: int) -> np.ndarray | None:
        """Class values of image i, [H, W]; None where nobody labelled it."""
        path = self._files[i].with_suffix(".mask.png")
        return read_mask(path) if path.exists() else None


def my_piece(data: Path) -> MyPiece:
    """Images with two classes, and the masks beside them.

    DIR/train/*.png, DIR/val/*.png; NAME.mask.png has 0 background, 1 thing, 255 unknown.
    """
    return MyPiece(data)


@hookimpl
def register_datasets(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
