"""Where a user's own images and masks are, and which of them train, validate and test."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from alseg.errors import UserMistake
from alseg.imagefiles import FORMATS, image_like_files, nested_files
from alseg.names import nearest
from alseg.paths import expanded
from alseg_datasets.files import SPLITS, ImageFile

SplitBy = Literal["auto", "folders", "lists", "fraction"]
VAL_FRACTION = 0.2  # of the images with a mask, where nothing else says what to evaluate on


def find_splits(
    root: Path, masks: str | None, split_by: SplitBy, val_fraction: float | None
) -> dict[str, list[ImageFile]]:
    """The images of each split, by folders, else by lists, else all for training; less those held out.

    The images are those of `root`/images where there is such a folder, else of `root`. A name is a path
    relative to that, without suffix.
    """
    images = root / "images" if (root / "images").is_dir() else root
    by = split_by if split_by != "auto" else _found(root, images)
    places = _places(root, masks, by)
    if by == "folders":
        splits = {place.split: _files(place.images, place.masks, f"{place.split}/") for place in places}
    elif by == "lists":
        splits = _by_list(root, images, _files(images, places[0].masks, ""))
    else:
        splits = {"train": _files(images, places[0].masks, "")}
    splits = {split: files for split, files in splits.items() if files}
    if not splits.get("train"):
        where = images / "train" if by == "folders" else root / "train.txt" if by == "lists" else images
        raise UserMistake(f"There is nothing to train on: {where} has no {FORMATS} image.")
    if "val" in splits and val_fraction:
        raise UserMistake(f"val_fraction is {val_fraction:g}, but there are images for val already: give one of them.")
    if val_fraction is None:
        held_out = [images / split if by == "folders" else root / f"{split}.txt" for split in SPLITS[1:]]
        empty = next((place for place in held_out if by != "fraction" and place.exists()), None)
        if len(splits) == 1 and empty is not None:
            raise UserMistake(
                f"{empty} has no {FORMATS} image to evaluate on: remove it, or say with dataset.val_fraction which "
                "share of the training images to take for that."
            )
        val_fraction = VAL_FRACTION if len(splits) == 1 else 0.0
    elif val_fraction and not any(_has_mask(file) for file in splits["train"]):
        raise UserMistake("val_fraction holds images with masks out for evaluation, and no image has a mask.")
    return _held_out(splits, val_fraction)


def _found(root: Path, images: Path) -> SplitBy:
    if (images / "train").is_dir():
        return "folders"
    return "lists" if (root / "train.txt").is_file() else "fraction"


class Place(NamedTuple):
    """A folder of images and that of their masks; split: that of all its images, where folders are splits."""

    split: str
    images: Path
    masks: Path | None


def _places(root: Path, masks: str | None, by: SplitBy) -> list[Place]:
    images = root / "images" if (root / "images").is_dir() else root
    if by != "folders":
        return [Place("", images, _masks_of(images, None, root, masks))]
    places = []
    for split in SPLITS:
        folder = images / split
        if folder.is_dir():
            inner = folder / "images" if (folder / "images").is_dir() else folder
            places.append(Place(split, inner, _masks_of(folder, split, root, masks)))
    return places


def passed_over(
    root: Path, masks: str | None, split_by: SplitBy, splits: Mapping[str, Sequence[ImageFile]]
) -> dict[str, list[str]]:
    """What lies among the images and masks and is in no split: what it is -> its paths, relative to `root`."""
    images = root / "images" if (root / "images").is_dir() else root
    places = _places(root, masks, split_by if split_by != "auto" else _found(root, images))
    lonely: dict[Path, Path] = {}
    paired: set[Path] = set()
    everything = image_like_files(root)
    for place in places:
        if place.masks is not None:
            found = nested_files(place.images, leave_out=[place.masks])
            for name, path in nested_files(place.masks, made=True).items():
                lonely[path.resolve()] = path
                paired |= {path.resolve()} if name in found else set()
            everything += image_like_files(place.masks)
    read = {path.resolve() for files in splits.values() for file in files for path in file[1:] if path is not None}
    rest = {path.resolve(): path for path in everything if path.resolve() not in read | lonely.keys()}
    kinds = {
        "files that look like images and are not read": rest,
        "masks without an image": {path: mask for path, mask in lonely.items() if path not in paired},
    }
    return {kind: sorted(_relative(path, root) for path in found.values()) for kind, found in kinds.items() if found}


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def _by_list(root: Path, images: Path, files: list[ImageFile]) -> dict[str, list[ImageFile]]:
    """Lines of train.txt, val.txt and test.txt are paths relative to the images or to `root`.

    Without its suffix an image is found where no file has the whole name.
    """
    whole: dict[str, set[ImageFile]] = {}
    stems: dict[str, set[ImageFile]] = {}
    for file in files:
        for base in (images, root):
            name = PurePosixPath(unicodedata.normalize("NFC", file.image.relative_to(base).as_posix()))
            whole.setdefault(str(name), set()).add(file)
            stems.setdefault(str(name.with_suffix("")), set()).add(file)
    known = stems | whole
    taken: dict[str, str] = {}
    splits: dict[str, list[ImageFile]] = {}
    for split in SPLITS:
        path = root / f"{split}.txt"
        for number, line in _lines(path) if path.is_file() else ():
            named = sorted(known.get(str(PurePosixPath(unicodedata.normalize("NFC", line))), ()))
            if not named:
                raise UserMistake(f"Line {number} of {path} names {line}, which is no image{nearest(line, known, 1)}.")
            if len(named) > 1:
                both = " and ".join(str(file.image) for file in named)
                raise UserMistake(f"Line {number} of {path} names {line}, which is both {both}: rename one of the two.")
            found = named[0]
            if found.key in taken:
                raise UserMistake(f"The image {found.key} is in {taken[found.key]} and again in {path.name}.")
            taken[found.key] = path.name
            splits.setdefault(split, []).append(found)
    return splits


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that say something, with their numbers from 1."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
        return [(number, line) for number, line in enumerate(lines, 1) if line]
    except OSError as error:
        raise UserMistake(f"Cannot read the list {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserMistake(f"The list {path} is not UTF-8: {error.reason}.") from error


def _masks_of(images: Path, split: str | None, root: Path, stated: str | None) -> Path | None:
    """The folder of the masks of a folder of images; `images` is a split's own where there is a split."""
    if stated is not None:
        folder = root / expanded(stated)
        if not folder.is_dir():
            raise UserMistake(f"There is no folder of masks {folder}.")
        if folder.resolve() == images.resolve():
            raise UserMistake(f"The masks must be in a folder of their own, not in {folder} with the images.")
        return folder / split if split is not None and (folder / split).is_dir() else folder
    places = [root / "masks"]
    if split is not None:
        places = [images / "masks", images.parent / f"{split}annot", root / f"{split}annot", root / "masks" / split]
    return next((place for place in places if place.is_dir()), None)


def _files(images: Path, masks: Path | None, prefix: str) -> list[ImageFile]:
    """The images of a folder with the masks of the same relative name."""
    found = nested_files(images, leave_out=[] if masks is None else [masks])
    labelled: Mapping[str, Path] = {} if masks is None else nested_files(masks, made=True)
    if found and labelled and not found.keys() & labelled.keys():
        raise UserMistake(
            f"No mask in {masks} has the name of an image in {images}: there is {next(iter(labelled))!r}, but the "
            f"image {next(iter(found))!r} needs a mask of that name."
        )
    return [ImageFile(prefix + name, path, labelled.get(name)) for name, path in found.items()]


def _has_mask(file: ImageFile) -> bool:
    return file.mask is not None


def _held_out(splits: dict[str, list[ImageFile]], fraction: float) -> dict[str, list[ImageFile]]:
    """`fraction` of the training images with masks, one at least, become val: those whose names hash lowest.

    One image stays to train on. A name's hash does not depend on the others', so that more images change
    little of the choice.
    """
    train = splits["train"]
    masked = sorted(filter(_has_mask, train), key=lambda file: (_uniform(file.key), file.key))
    count = min(max(1, round(fraction * len(masked))), len(train) - 1) if fraction else 0
    chosen = {file.key for file in masked[:count]}
    if not chosen:
        return splits
    kept, held = ([file for file in train if (file.key in chosen) == wanted] for wanted in (False, True))
    return {**splits, "train": kept, "val": held}


def _uniform(key: str) -> float:
    """In [0, 1), by BLAKE2b of the name, as alseg.noise starts its streams."""
    return int.from_bytes(hashlib.blake2b(f"val\0{key}".encode(), digest_size=8).digest(), "little") / 2**64
