"""An image dataset of datasets: its splits, columns and images."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from alseg.calling import first_line
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg_hf.labels import Labels, labels, names_in, read_id2label
from alseg_hf.pictures import mask_values, picture, stamp

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}
IMAGE_NAMES = ("image", "img", "pixel_values", "picture")
MASK_NAMES = (
    "mask",
    "label",
    "labels",
    "annotation",
    "segmentation_mask",
    "semantic_mask",
    "segmentation",
    "semantic_segmentation",
    "label_map",
    "seg",
)
VAL_FRACTION = 0.2
ID2LABEL = "id2label.json"


class HubDataset:
    """Named columns of the splits of a dataset; `source` is where it was had, for messages."""

    recipe = "folder"

    def __init__(
        self,
        source: str,
        tables: Mapping[str, Any],
        columns: tuple[str, str | None],
        labels: Labels,
        key: str | None,
        val_fraction: float | None,
    ) -> None:
        self.classes = labels.classes
        self._source = source
        found = {split: TableImages(table, columns, labels, name, key) for split, (name, table) in tables.items()}
        if val_fraction is None:
            val_fraction = VAL_FRACTION if len(found) == 1 and columns[1] is not None else 0.0
        self._images: dict[str, TableImages] = _held_out(found, val_fraction)
        self.splits = tuple(split for split in SPLITS if split in self._images)

    def images(self, split: str) -> TableImages:
        """The images of a split, in the dataset's order."""
        if split not in self._images:
            raise UserMistake(f"{self._source} has no split {split}; there are {', '.join(self.splits)}.")
        return self._images[split]


class TableImages:
    """Rows of a table, read when asked for; from several threads if wanted, since tables never change.

    rows: which of them; None: all.
    """

    def __init__(
        self,
        table: Any,
        columns: tuple[str, str | None],
        labels: Labels,
        name: str,
        key: str | None,
        rows: Sequence[int] | None = None,
    ) -> None:
        for column in (columns[0], key):
            if column is not None and column not in table.features:
                raise UserMistake(f"The split {name} has no column {column!r}; it has {', '.join(table.features)}.")
        self._table, self._columns, self._labels, self._name, self._key = table, columns, labels, name, key
        self._rows = range(len(table)) if rows is None else rows
        self._image = encoded(table, columns[0])
        self._mask = encoded(table, columns[1]) if columns[1] and columns[1] in table.features else None
        # NumPy's format makes NaN of an array that is null
        self._as_stored = None if self._mask is None else self._mask.with_format("arrow")
        self._keys = None if key is None else [str(value) for value in table.select_columns([key])[key]]

    def __len__(self) -> int:
        return len(self._rows)

    def key(self, i: int) -> str:
        """The split's own name and the row's number, such as train/000012; or what the column of keys says."""
        row = self._rows[i]
        return f"{self._name}/{row:06}" if self._keys is None else self._keys[row]

    def stamp(self, i: int) -> str | None:
        """Another once the image, its mask or what the mask's values mean is another."""
        image = self._image[self._rows[i]][self._columns[0]]
        found = stamp(image, self._stored_mask(i))
        return found and f"{found} {sorted(self._labels.values.items())}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return picture(self._image[self._rows[i]][self._columns[0]], self.key(i))

    def has_mask(self, i: int) -> bool:
        """Whether a mask is stored, which is not read."""
        return self._as_stored is not None and self._as_stored[self._rows[i]].column(0).null_count == 0

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W]; None where there is no mask."""
        values = mask_values(self._stored_mask(i), self.key(i))
        return None if values is None else self._labels.read(values, self.key(i))

    def _stored_mask(self, i: int) -> Any:
        return self._mask[self._rows[i]][self._columns[1]] if self._mask is not None and self.has_mask(i) else None

    def only(self, rows: Sequence[int]) -> TableImages:
        """Some of the rows."""
        return TableImages(self._table, self._columns, self._labels, self._name, self._key, rows)


def encoded(table: Any, column: str) -> Any:
    """A column by itself, its pictures as they are stored and its arrays as NumPy's."""
    alone = table.select_columns([column])
    if isinstance(table.features[column], datasets.Image):
        return alone.cast_column(column, datasets.Image(decode=False))
    return alone.with_format("numpy")


def open_tables(path: str | None, data: Path | None, subset: str | None, revision: str | None) -> tuple[str, Any]:
    """What it is called in messages, and the tables by the splits' own names."""
    if (path is None) == (data is None):
        raise UserMistake("Give -o dataset.path=NAME for a dataset of the hub, or --data DIR for one in a folder.")
    if data is not None and not data.is_dir():
        raise UserMistake(f"There is no folder {data}: give the dataset's folder with --data.")
    source = f"The dataset {path if data is None else data}"
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if data is not None and any((data / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(data))
        else:
            found = datasets.load_dataset(path if data is None else str(data), subset, revision=revision)
    except Exception as error:  # of many kinds: the network's, the files', the library's own
        raise UserMistake(f"{source} could not be had: {first_line(error)}.") from error
    if not isinstance(found, Mapping):
        found = {"train": found}
    return source, found


def chosen_splits(source: str, tables: Mapping[str, Any], stated: Mapping[str, str | None]) -> dict[str, Any]:
    """train, val and test -> the split's own name and its table; a table by itself is train, whatever its name."""
    chosen = {split: name for split, name in stated.items() if name is not None}
    for name in chosen.values():
        if name not in tables:
            raise UserMistake(f"{source} has no split {name!r}; there are {', '.join(tables)}.")
    if len(tables) == 1 and "train" not in chosen:
        chosen["train"] = next(iter(tables))
    for split in SPLITS:
        free = [own for own in SPLIT_NAMES[split] if own in tables and own not in chosen.values()]
        if free and split not in chosen:
            chosen[split] = free[0]
    if "train" not in chosen:
        raise UserMistake(f"{source} has no split for train: give -o dataset.train=, of {', '.join(tables)}.")
    if len(set(chosen.values())) < len(chosen):
        twice = ", ".join(f"{split} is {name}" for split, name in chosen.items())
        raise UserMistake(f"{source}: one split cannot be two of train, val and test, but {twice}.")
    return {split: (name, tables[name]) for split, name in chosen.items()}


def chosen_columns(
    source: str, features: Mapping[str, Any], image: str | None, mask: str, key: str | None
) -> tuple[str, str | None]:
    """The columns of the images and of their masks, None where nobody has labelled them; all three exist."""
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    for stated in (image, key, None if mask in ("auto", "none") else mask):
        if stated is not None and stated not in features:
            raise UserMistake(f"{source} has no column {stated!r}{nearest(stated, list(features))}.")
    if key is not None and not _is_text_or_number(features[key]):
        raise UserMistake(f"{source}: dataset.key must be a column of text or numbers, which {key!r} is not.")
    if image is None:
        named = [name for name in IMAGE_NAMES if name in pictures]
        if not named and len(pictures) != 1:
            known = f"of {', '.join(pictures)}" if pictures else f"there are {', '.join(features)}"
            raise UserMistake(f"{source} does not tell which column holds its images: give -o dataset.image=, {known}.")
        image = named[0] if named else pictures[0]
    elif image not in pictures:
        raise UserMistake(f"{source}: the column {image!r} holds no images; {', '.join(pictures) or 'no column does'}.")
    if mask != "auto":
        return image, None if mask == "none" else mask
    others = [name for name in features if name != image and _is_map(features[name])]
    named = [name for name in MASK_NAMES if name in others]
    if not named and len(others) > 1:
        raise UserMistake(
            f"{source} does not tell which column holds its masks: give -o dataset.mask=, of {', '.join(others)}, none."
        )
    return image, next(iter(named or others), None)


def _is_text_or_number(feature: Any) -> bool:
    return isinstance(feature, datasets.Value) and re.search("string|int|float", feature.dtype) is not None


def _is_map(feature: Any) -> bool:
    """A picture, or numbers in two dimensions, be it with a third of 1."""
    if isinstance(feature, datasets.Image | datasets.Array2D):
        return True
    if isinstance(feature, datasets.Array3D):
        return feature.shape[-1] == 1
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    if inner is None:
        return False
    return isinstance(inner, list) or getattr(inner, "feature", None) is not None


def chosen_labels(
    source: str,
    feature: Any,
    file: Path | None,
    classes: Sequence[str] | None,
    void: int | None,
    reduced: bool,
) -> Labels:
    """From names that were given, a file, or what the masks' column says of itself."""
    if classes is not None:
        names: dict[int, str] | None = dict(enumerate(classes))
    elif file is not None:
        names = read_id2label(file)
    else:
        names = names_in(feature)
    if names is None:
        raise UserMistake(
            f"{source} does not name its classes: give --classes road,sky,... or -o dataset.id2label=FILE, in the "
            "order of the masks' values."
        )
    return labels(names, void, reduced)


def id2label_of(path: str | None, data: Path | None, revision: str | None) -> Path | None:
    """The file id2label.json that lies with a dataset, where there is one."""
    if data is not None:
        return data / ID2LABEL if (data / ID2LABEL).is_file() else None
    import huggingface_hub

    # whatever hinders it, the classes are then asked for
    with suppress(Exception):
        return Path(huggingface_hub.hf_hub_download(path or "", ID2LABEL, repo_type="dataset", revision=revision))
    return None


def _held_out(splits: Mapping[str, TableImages], fraction: float) -> dict[str, TableImages]:
    """`fraction` of the training images with masks, one at least, become val: those whose names hash lowest.

    One image stays to train on. More images change little of the choice.
    """
    if "val" in splits and fraction:
        raise UserMistake(f"val_fraction is {fraction:g}, but there is a split for val already: give one of them.")
    train = splits["train"]
    masked = [i for i in range(len(train)) if train.has_mask(i)] if fraction else []
    count = min(max(1, round(fraction * len(masked))), len(train) - 1) if masked else 0
    if count < 1:
        return dict(splits)
    order = sorted(masked, key=lambda i: hashlib.blake2b(f"val\0{train.key(i)}".encode()).digest())
    held = set(order[:count])
    kept = [i for i in range(len(train)) if i not in held]
    return {**splits, "train": train.only(kept), "val": train.only(sorted(held))}
