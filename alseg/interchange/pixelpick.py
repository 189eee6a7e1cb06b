"""The query files of PixelPick's published code, read without running what is in them.

It writes `queries.pkl`, a dict from an image's path to its `height`, `width`, `x_coords` and `y_coords` and, where a
person answered, `category_id`; and, in its earlier form, `queries.npy` and `label.npy` (bool [N, H, W]) or
`label.pkl` (a list of bool [H, W]), whose images are those of the training set sorted by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alseg.errors import UserMistake
from alseg.interchange.fields import shown, text, whole
from alseg.interchange.known import Known
from alseg.interchange.labelset import LabelSet
from alseg.interchange.pickles import read_pickle
from alseg.values import Classes, PixelLabel

Places = tuple[np.ndarray, tuple[int, int] | None]  # [n, 2] as (y, x), and the size of the grid they are on


def read_pixelpick(path: Path, known: Known | None = None, classes: Classes | None = None) -> LabelSet:
    """The queried pixels; classes are the file's own, else those of the dataset's masks.

    Pixels on another grid than the image's are moved to where their centres lie.
    """
    content = _array_file(path) if path.suffix.lower() == ".npy" else read_pickle(path)
    labels: list[PixelLabel] = []
    for name, entry in _entries(path, content, known):
        try:
            image = name if known is None else known.match(name)
            points, grid = _places(entry)
            if known is not None and image is not None:
                points = _moved(points, grid, known.size(image))
            names: list[str | None] = [None] * len(points)  # of an image that is missing, which is said with all others
            if known is None or image is not None:
                names = _names(entry, points, image or name, known, known.classes if known else classes)
        except UserMistake as error:
            raise UserMistake(f"The image {shown(name)} of {path}: {error}") from error
        for (y, x), found in zip(points.tolist(), names, strict=True):
            item = f"imported-{len(labels):07}"
            labels.append(PixelLabel(item, image or name, y, x, found, 0, "imported", "", None))
    return LabelSet(tuple(labels))


def _array_file(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except Exception as error:
        raise UserMistake(f"{path} is no array that numpy can load without pickle.") from error
    return found


def _entries(path: Path, content: Any, known: Known | None) -> Iterator[tuple[str, Any]]:
    """Each image's name and what is said of it."""
    if isinstance(content, Mapping):
        for name, entry in content.items():
            yield text(name, f"a name in {path}"), entry
        return
    if not isinstance(content, list) and not (isinstance(content, np.ndarray) and content.ndim == 3):
        raise UserMistake(f"{path} is no query file: it holds neither images by name nor a mask for each.")
    if known is None:
        raise UserMistake(f"{path} holds masks without names: give the dataset whose training images they are of.")
    keys = known.train_keys()
    if len(content) != len(keys):
        raise UserMistake(f"{path} holds {len(content)} masks; the dataset has {len(keys)} training images.")
    yield from zip(keys, content, strict=True)


def _places(entry: Any) -> Places:
    if isinstance(entry, np.ndarray):
        if entry.ndim != 2 or entry.dtype.kind not in "bu" or (entry.size and entry.max() > 1):
            raise UserMistake(f"it has an array of {entry.dtype} {list(entry.shape)}, which is no mask.")
        return np.argwhere(entry), (entry.shape[0], entry.shape[1])
    if not isinstance(entry, Mapping):
        raise UserMistake(f"it has {shown(entry)}, neither coordinates nor a mask.")
    ys, xs = (_column(entry, key) for key in ("y_coords", "x_coords"))
    if len(ys) != len(xs):
        raise UserMistake(f"it has {len(ys)} y_coords and {len(xs)} x_coords.")
    grid = None
    if "height" in entry and "width" in entry:
        grid = whole(entry["height"], "height"), whole(entry["width"], "width")
        if not all(grid) or any(y >= grid[0] or x >= grid[1] for y, x in zip(ys, xs, strict=True)):
            raise UserMistake(f"it has a pixel outside its own {grid[0]}x{grid[1]}.")
    return np.array([ys, xs], np.int64).T.reshape(-1, 2), grid


def _column(entry: Mapping[Any, Any], key: str) -> list[int]:
    return [whole(value, key) for value in _listed(entry, key)]


def _listed(entry: Mapping[Any, Any], key: str) -> list[Any]:
    values = entry.get(key)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        values = values.tolist()
    if not isinstance(values, list):
        raise UserMistake(f"it has no list {key}.")
    return values


def _moved(points: np.ndarray, grid: tuple[int, int] | None, size: tuple[int, int]) -> np.ndarray:
    """Pixels of a grid as the image's pixels in which their centres lie."""
    if grid is None or grid == size or not len(points):
        return points
    found: np.ndarray = (2 * points + 1) * np.array(size) // (2 * np.array(grid))
    return found


def _names(
    entry: Any, points: np.ndarray, image: str, known: Known | None, classes: Classes | None
) -> list[str | None]:
    """The class of each pixel; None where it is void."""
    if isinstance(entry, Mapping) and "category_id" in entry:
        numbers = [whole(value, "category_id") for value in _listed(entry, "category_id")]
        if classes is None and "category" in entry:
            names: list[str | None] = [text(name, "category") for name in _listed(entry, "category")]
        elif classes is None:
            raise UserMistake("it has numbers of classes: give --classes or the dataset.")
        else:
            names = [_name(number, classes) for number in numbers]
        if len(names) != len(points):
            raise UserMistake(f"it has {len(points)} pixels and {len(names)} classes.")
        return names
    mask = None if known is None or classes is None else known.mask(image)
    if mask is None or classes is None:
        raise UserMistake("it does not say its pixels' classes: give the dataset, with masks.")
    if len(points) and not (points < np.array(mask.shape)).all():
        raise UserMistake(f"it has a pixel outside the image of {mask.shape[0]}x{mask.shape[1]}.")
    return [_name(int(value), classes) for value in mask[points[:, 0], points[:, 1]]]


def _name(value: int, classes: Classes) -> str | None:
    if 0 <= value < len(classes):
        return classes.names[value]
    if value not in (classes.void, 255):
        raise UserMistake(f"it has the class {value}; there are {len(classes)}.")
    return None
