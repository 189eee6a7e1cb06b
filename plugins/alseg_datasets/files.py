"""Files of a dataset: finding them, and the images of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alseg.errors import UserMistake
from alseg.imagefiles import is_image, read_image, read_mask
from alseg.paths import expanded
from alseg.stamps import file_stamp

SPLITS = ("train", "val", "test")


class ImageFile(NamedTuple):
    """An image's name, its file, and its mask's file, which need not exist."""

    key: str
    image: Path
    mask: Path | None


def existing_folder(data: Path, whose: str) -> Path:
    """`data` resolved; UserMistake where there is no such folder."""
    root = expanded(data)
    if not root.is_dir():
        raise UserMistake(f"There is no folder {data}: give {whose} folder with --data.")
    return root.resolve()


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, sorted by name; two of one stem are refused."""
    try:
        found = sorted(p for p in folder.iterdir() if is_image(p))
    except OSError as error:
        raise UserMistake(f"Cannot read the folder {folder}: {error.strerror}.") from error
    stems: dict[str, Path] = {}
    for path in found:
        if path.stem in stems:
            raise UserMistake(f"{folder} holds {stems[path.stem].name} and {path.name}: keep one of the two.")
        stems[path.stem] = path
    return found


class FileImages:
    """The images of one split, in files.

    mask_reader: gives class values [H, W] of a mask file. reading: a text that is another where it reads otherwise;
    None: that is not told, so that the files are decoded whenever a run starts.
    """

    def __init__(
        self,
        files: Sequence[ImageFile],
        mask_reader: Callable[[Path], np.ndarray] = read_mask,
        reading: str | None = None,
    ) -> None:
        self.files, self._mask_reader, self._reading = files, mask_reader, reading

    def __len__(self) -> int:
        return len(self.files)

    def key(self, i: int) -> str:
        """The image's name."""
        return self.files[i].key

    def file(self, i: int) -> Path:
        """The image's file."""
        return self.files[i].image

    def stamp(self, i: int) -> str | None:
        """Another once a file of the image or its mask, or how masks are read, is another."""
        files = None if self._reading is None else file_stamp(self.files[i].image, self.files[i].mask)
        return files and f"{files} {self._reading}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return read_image(self.files[i].image)

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W]; None where there is no mask file."""
        path = self.files[i].mask
        return self._mask_reader(path) if path is not None and path.exists() else None
