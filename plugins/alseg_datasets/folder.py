"""A user's own images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from alseg.errors import UserMistake
from alseg_datasets.files import SPLITS, FileImages, existing_folder
from alseg_datasets.folder_classes import named_classes, read_classes
from alseg_datasets.folder_layout import SplitBy, find_splits, passed_over


class Folder:
    """Images of any size in a folder, with masks or none.

    classes: names; None: from `classes_file`, by default classes.toml in the folder. masks: the folder of
    the masks, relative to `data`; None: found beside the images. val_fraction: the share of the images with
    masks to evaluate on; None: a fifth where there is neither val nor test.
    """

    recipe = "folder"

    def __init__(
        self,
        data: Path,
        classes: tuple[str, ...] | None = None,
        classes_file: Path | None = None,
        masks: str | None = None,
        val_fraction: float | None = None,
        split_by: SplitBy = "auto",
    ) -> None:
        root = existing_folder(data, "your images'")
        if classes is not None and classes_file is not None:
            raise UserMistake("Give --classes or dataset.classes_file, not both.")
        file = classes_file or root / "classes.toml"
        if classes is None and classes_file is None and not file.exists():
            raise UserMistake(
                f"Which classes are there? Give --classes road,sky,... or put a file classes.toml into {data}."
            )
        self.classes, self._mask_reader = read_classes(file) if classes is None else named_classes(classes)
        self._files = find_splits(root, masks, split_by, val_fraction)
        self._passed_over = partial(passed_over, root, masks, split_by, self._files)
        self.splits = tuple(split for split in SPLITS if split in self._files)

    def passed_over(self) -> dict[str, list[str]]:
        """What lies among the images and masks and is not read, by what it is."""
        return self._passed_over()

    def images(self, split: str) -> FileImages:
        """The images of a split, by name or in the order of their list."""
        if split not in self._files:
            raise UserMistake(f"There is no split {split}; there are {', '.join(self.splits)}.")
        return FileImages(self._files[split], self._mask_reader, reading=repr(self._mask_reader))
