"""Masks, overlays and maps of a user's images by a run's model, in files."""

from __future__ import annotations

import errno
import glob
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alseg.calling import described
from alseg.colours import colours_of, heat, levels
from alseg.engine.device import in_smaller_batches
from alseg.errors import Interrupted, Lasting, UserMistake
from alseg.imagefiles import FORMATS, encoded, is_image, nested_files, read_image
from alseg.options import Longer, Size
from alseg.paths import expanded
from alseg.plugins import Registry
from alseg.progress import Progress, Quiet
from alseg.segment import TILE, Segmentation, Segmenter
from alseg.store import RunFolder
from alseg.values import Classes
from alseg.writing import UNFINISHED, write_whole

FACTS, STAMPS = "predictions.json", "done.jsonl"
OUTPUTS = (("masks", ".png"), ("overlays", ".jpg"), ("probabilities", ".npy"), ("utility", ".npy"), ("utility", ".png"))
SMALLEST_TILE = 64
OPACITY = 0.55


@dataclass(frozen=True)
class Predicted:
    """What was written where: images done now, images that were there already, and those that failed."""

    folder: Path
    done: list[str]
    kept: list[str]
    failed: list[str]  # a sentence each


def predict(
    run: Path | str,
    images: Iterable[Path | str] | Path | str,
    out: Path | str,
    *,
    overlays: bool = True,
    probabilities: bool = False,
    utility: bool = False,
    round: int | None = None,
    size: Size | Longer | str | None = None,
    tile: int = TILE,
    device: str = "auto",
    precision: str = "auto",
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Predicted:
    """Segment image files, folders of them or globs, one or several, into `out`.

    masks/NAME.png holds class values with the classes' palette, overlays/NAME.jpg the image under them,
    probabilities/NAME.npy float16 [C, H, W], utility/NAME.npy float32 [H, W] and NAME.png a picture of it.
    What was done of an image that has not changed is kept, so that the same call goes on where it was
    stopped; a file from elsewhere whose name is there already is refused. An image that cannot be read is
    passed over and told in the result; the masks of the run's dataset are passed over in folders.
    """
    progress, place = progress or Quiet(), expanded(out)
    files = named_images(images, place, mask_folders(RunFolder(Path(run)).settings()))
    segmenter = Segmenter(run, round=round, device=device, precision=precision, size=size, tile=tile, registry=registry)
    if utility:
        segmenter.acquirer()  # what is wrong with it is said before anything is written
    _claim(place, segmenter, tile)
    writers = _writers(place, segmenter.classes, overlays, probabilities, utility)
    stamps, result = Stamps(place / STAMPS), Predicted(place, [], [], [])
    stamps.refuse_others(files)
    try:
        with progress.phase("predicting", len(files)) as step:
            for name, path in files.items():
                targets = [target(name) for target, _ in writers]
                try:
                    stamp = stamps.of(path)
                    if stamps.known.get(name) == stamp and all(target.exists() for target in targets):
                        result.kept.append(name)
                    else:
                        image = read_image(path)
                        seen = _segmented(segmenter, image, name, probabilities, utility, progress)
                        if stamps.known.get(name) != stamp:
                            _forget(place, name)
                        for target, (_, content) in zip(targets, writers, strict=True):
                            target.parent.mkdir(parents=True, exist_ok=True)
                            write_whole(target, content(image, seen))
                        stamps.add(name, stamp)
                        result.done.append(name)
                except (UserMistake, Lasting) as error:
                    result.failed.append(str(error))
                except MemoryError:
                    result.failed.append(f"There is not enough memory for the outputs of {path}.")
                except OSError as error:
                    if error.errno not in (None, errno.ENAMETOOLONG, errno.ENOENT):
                        raise
                    # without a number it is Pillow's, such as of a picture that is too wide for a JPEG
                    result.failed.append(f"{error.strerror or f'It cannot be written ({error})'}: {path}.")
                step(1, "")
    except KeyboardInterrupt as stop:
        done = len(result.done) + len(result.kept)
        raise Interrupted(f"Interrupted; {done} of {len(files)} images are done, the same command goes on.") from stop
    return result


def _segmented(
    segmenter: Segmenter, image: np.ndarray, name: str, probabilities: bool, utility: bool, progress: Progress
) -> Segmentation:
    """In smaller tiles from here on where the memory is too small."""

    def segment(tile: int) -> Segmentation:
        segmenter.tile = tile
        return segmenter.segment(image, probabilities=probabilities, utility=utility, key=name)

    tile = segmenter.tile
    try:
        return in_smaller_batches(segment, tile, f"predicting {name} in tiles", progress.say, least=SMALLEST_TILE)
    except Lasting:
        segmenter.tile = tile  # the next image may be a smaller one
        raise


class Stamps:
    """Which image files were done: a line each with its path, size and time, the last of a name counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.known: dict[str, tuple[str, int, int]] = {}
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a torn end does not count
        for line in lines:
            try:
                record = json.loads(line)
                self.known[str(record["image"])] = (record["path"], *record["stamp"])
            except (ValueError, KeyError, TypeError):
                continue  # that image is predicted again

    @staticmethod
    def of(path: Path) -> tuple[str, int, int]:
        """An image file's path, size and time."""
        status = path.stat()
        return str(path.resolve()), status.st_size, status.st_mtime_ns

    def add(self, name: str, stamp: tuple[str, int, int]) -> None:
        """Say that an image's outputs are all there."""
        self.known[name] = stamp
        path, *rest = stamp
        with open(self._path, "ab") as file:
            file.write(json.dumps({"image": name, "path": path, "stamp": rest}).encode() + b"\n")

    def refuse_others(self, files: Mapping[str, Path]) -> None:
        """UserMistake where what was done under a file's name is another file's."""
        for name, path in files.items():
            before = self.known.get(name)
            if before is not None and before[0] != str(path.resolve()):
                raise UserMistake(
                    f"{self._path.parent} holds what was predicted of {before[0]} as {name}, which {path} would be "
                    "written as, too: give another --out."
                )


def mask_folders(settings: Mapping[str, Any]) -> list[Path]:
    """Where a run's dataset has its masks, by its options `data` and `masks`; they may lie among the images."""
    dataset = settings.get("dataset")
    if not isinstance(dataset, Mapping) or not {"data", "masks"} <= dataset.keys():
        return []
    root = Path(str(dataset["data"]))
    if dataset["masks"] != "none":
        return [root / expanded(str(dataset["masks"]))]
    splits = [base / split for base in (root, root / "images") for split in ("train", "val", "test")]
    return [root / "masks", *(place for s in splits for place in (s / "masks", s.with_name(f"{s.name}annot")))]


def named_images(images: Iterable[Path | str] | Path | str, out: Path, masks: Sequence[Path] = ()) -> dict[str, Path]:
    """Files by the name their outputs get: relative to the folder that was given, without suffix.

    In that folder what lies in `out` or in folders of masks is passed over.
    """
    found: dict[str, Path] = {}
    if not isinstance(images, str | Path | Iterable) or isinstance(images, bytes):
        images = [images]  # which is refused
    for given in [images] if isinstance(images, str | Path) else images:
        if not isinstance(given, str | Path) or given == "":
            raise UserMistake(f"Images are given by paths, not {described(given)}: Segmenter.segment takes pixels.")
        for name, path in _files(str(given), out.resolve(), masks):
            if found.setdefault(name, path).resolve() != path.resolve():
                raise UserMistake(f"{found[name]} and {path} would both be written as {name}: predict them apart.")
    if not found:
        raise UserMistake(f"There is no {FORMATS} image in what was given.")
    return found


def _files(given: str, out: Path, masks: Sequence[Path]) -> Sequence[tuple[str, Path]]:
    path = expanded(given)
    own_folder = UserMistake(f"--out is the folder of the images {given} themselves: give another --out.")
    if path.is_dir():
        if path.resolve() == out:
            raise own_folder
        inside = nested_files(path, leave_out=[out, *(mask for mask in masks if mask.resolve() != path.resolve())])
        if not inside:
            raise UserMistake(f"The folder {given} holds no {FORMATS} image.")
        return list(inside.items())
    if path.is_file():
        if not is_image(path):
            raise UserMistake(f"{given} is no {FORMATS} file.")
        return [(path.stem, path)]
    matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True)) if is_image(Path(match))]
    matches = [match for match in matches if match.is_file()]
    outside = [match for match in matches if not match.resolve().is_relative_to(out)]
    if matches and not outside:
        raise own_folder
    if not matches:
        raise UserMistake(f"There is no image {given}.")
    return [(match.stem, match) for match in outside]


def _claim(place: Path, segmenter: Segmenter, tile: int) -> None:
    """Make the folder; UserMistake where it holds another model's predictions, or other files."""
    facts = {
        "run": str(segmenter.folder.resolve()),
        "round": segmenter.round,
        "model": segmenter.digest,
        "size": str(segmenter.size or "own"),
        "tile": tile,
        "precision": segmenter.precision,
        "classes": list(segmenter.classes.names),
        "void": segmenter.classes.void,
    }
    path = place / FACTS
    if path.exists():
        try:
            before = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserMistake(f"{path} is damaged: give another --out.") from error
        keys = [key for key in facts if key != "run"]  # a run may be moved
        changed = [key for key in keys if not isinstance(before, dict) or before.get(key) != facts[key]]
        if changed:
            raise UserMistake(f"{place} holds predictions with another {changed[0]}: give another --out.")
        return
    if place.exists() and (not place.is_dir() or not all(path.match(UNFINISHED) for path in place.iterdir())):
        raise UserMistake(f"{place} holds other files: give another --out.")
    place.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8", "replace"))


Writer = tuple[Callable[[str], Path], Callable[[np.ndarray, Segmentation], bytes]]


def _writers(place: Path, classes: Classes, overlays: bool, probabilities: bool, utility: bool) -> list[Writer]:
    """Where each output of an image goes, and what is in it."""

    masks, laid_over, chances, values, heats = (partial(_at, place, *output) for output in OUTPUTS)
    writers: list[Writer] = [(masks, lambda image, seen: mask_file(seen.mask, classes))]
    if overlays:
        writers.append((laid_over, partial(_overlay, classes=classes)))
    if probabilities:
        writers.append((chances, lambda image, seen: _array(seen.probabilities, np.float16)))
    if utility:
        writers.append((values, lambda image, seen: _array(seen.utility, np.float32)))
        writers.append((heats, lambda image, seen: _heat(seen.utility)))
    return writers


def _at(place: Path, folder: str, suffix: str, name: str) -> Path:
    return place / folder / f"{name}{suffix}"


def _forget(place: Path, name: str) -> None:
    """Take away what was written of an image that is another one now, also what is not asked for this time."""
    for output in OUTPUTS:
        _at(place, *output, name).unlink(missing_ok=True)


def mask_file(mask: np.ndarray, classes: Classes) -> bytes:
    """A PNG of class values: with the classes' palette up to 256 of them, in 16 bits beyond."""
    if len(classes) > 256:
        return encoded(Image.fromarray(mask.astype(np.uint16)), "PNG")
    picture = Image.fromarray(mask.astype(np.uint8), "P")
    picture.putpalette(bytes(channel for colour in colours_of(classes) for channel in colour))
    return encoded(picture, "PNG")


def _overlay(image: np.ndarray, seen: Segmentation, classes: Classes) -> bytes:
    colours = np.array(colours_of(classes), np.uint8)[seen.mask]
    return encoded(Image.blend(Image.fromarray(image), Image.fromarray(colours), OPACITY), "JPEG", quality=90)


def _array(values: np.ndarray | None, kind: type) -> bytes:
    assert values is not None
    content = io.BytesIO()
    np.save(content, values.astype(kind), allow_pickle=False)
    return content.getvalue()


def _heat(values: np.ndarray | None) -> bytes:
    assert values is not None
    return encoded(heat(levels(values)), "PNG")
