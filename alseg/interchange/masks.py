"""Labels as images of class values, and label images and scribbles as points."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
from PIL import Image, PngImagePlugin

from alseg.class_file import default_void, read_class_file
from alseg.colours import DISTINCT, Colour, colours_of, distinct, packed
from alseg.errors import UserMistake
from alseg.imagefiles import MADE, encoded, is_image, nested_files, read_label_image
from alseg.interchange.fields import shown, text
from alseg.interchange.filenames import file_names
from alseg.interchange.labelset import LabelSet, Size
from alseg.interchange.thinning import thinned
from alseg.palettes import by_colour, looked_up
from alseg.progress import Progress, Quiet
from alseg.values import Classes, PixelLabel

CLASSES = "classes.toml"
NAME = "alseg-image"  # a PNG's text of this name says which image it belongs to, as JSON
MOST = 2_000_000  # points of one import; a label takes some 200 bytes
LOST = 'rounds, sources, who answered in what time, and pixels that are never trained on ("can\'t tell", audits)'


def write_masks(labels: LabelSet) -> dict[str, bytes]:
    """A PNG of class values for each image that was asked, void where nothing is known, and their classes.toml."""
    assert labels.classes is not None
    classes = labels.classes
    void = _void(classes)
    palette = np.zeros((256, 3), np.uint8)
    palette[: min(256, len(classes))] = _apart(classes)[:256]
    found = labels.by_image()
    files = file_names({image: labels.file(image) for image in found}, ".png")
    written = {CLASSES: _class_file(classes, void), MADE: b""}
    for image, own in found.items():
        mask = np.full(labels.sizes[image], void, np.uint8 if void <= 255 else np.uint16)
        for pixel in own:
            if pixel.name is not None and not pixel.audit:
                mask[pixel.y, pixel.x] = classes.index[pixel.name]
        picture = Image.fromarray(mask)
        if mask.dtype == np.uint8:
            picture.putpalette(palette.tobytes())
        facts = PngImagePlugin.PngInfo()
        facts.add_text(NAME, json.dumps(image))
        written[files[image]] = encoded(picture, "PNG", pnginfo=facts)
    return written


def _void(classes: Classes) -> int:
    return classes.void if len(classes) <= classes.void <= 65535 else default_void(len(classes))


def _apart(classes: Classes) -> tuple[Colour, ...]:
    """The classes' colours, or others where two share one: what is read again must tell them apart."""
    own = colours_of(classes)
    return own if len(set(own)) == len(own) else distinct(len(own))


def _class_file(classes: Classes, void: int) -> bytes:
    table = {"names": list(classes.names), "colours": [list(c) for c in _apart(classes)], "void": void}
    return tomli_w.dumps(table).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Key:
    """How label images mean classes: by value, or by packed RGB in colour pictures; -1 is unlabelled.

    palette: the colours by which palette images may mean them. filling: those that are unlabelled unless told.
    """

    classes: Classes
    values: Mapping[int, int]
    colours: Mapping[int, int]
    palette: Mapping[int, int]
    filling: frozenset[int]


def read_masks(
    path: Path, classes: Classes | None = None, thin: int | None = None, progress: Progress | None = None
) -> LabelSet:
    """The labelled pixels of a label image or of a folder of them, thinned where `thin` says how far apart.

    What the values mean is said by classes.toml beside them, else by `classes`.
    """
    folder = path if path.is_dir() else path.parent
    key = _key_of(folder / CLASSES) if (folder / CLASSES).is_file() else None if classes is None else _key(classes)
    if key is None:
        raise UserMistake(f"{path} does not say its classes: give --classes, the dataset, or a {CLASSES} beside it.")
    files = nested_files(path, made=True) if path.is_dir() else {path.stem: path}
    labels: list[PixelLabel] = []
    sizes: dict[str, Size] = {}
    for stem, file in _watched(files, progress or Quiet()):
        image, points, values = _points(file, stem, key, thin)
        if image in sizes:
            raise UserMistake(f"{file} is a second label image of {shown(image)}.")
        sizes[image] = values.shape[0], values.shape[1]
        if len(labels) + len(points) > MOST:
            raise UserMistake(f"{path} has over {MOST} labelled pixels: give --thin N to keep some of them.")
        names = [key.classes.names[value] for value in values[points[:, 0], points[:, 1]].tolist()]
        for (y, x), name in zip(points.tolist(), names, strict=True):
            labels.append(PixelLabel(f"imported-{len(labels):07}", image, y, x, name, 0, "imported", "", None))
    return LabelSet(tuple(labels), sizes, key.classes)


def _watched(files: Mapping[str, Path], progress: Progress) -> Iterator[tuple[str, Path]]:
    with progress.phase("reading label images", len(files)) as step:
        for found in files.items():
            yield found
            step(1, "")


def label_images(path: Path) -> bool:
    """Whether a folder holds pictures."""
    return any(is_image(file) and file.is_file() for file in path.rglob("*"))


def _points(file: Path, stem: str, key: Key, thin: int | None) -> tuple[str, np.ndarray, np.ndarray]:
    """The image a label image belongs to, its points [n, 2], and its classes [H, W]."""
    pixels, opaque, palette, facts = read_label_image(file)
    codes, known = pixels.astype(np.int64), key.values
    if pixels.ndim == 3:
        codes, known = packed(*np.moveaxis(codes, 2, 0)), key.colours
    elif palette is not None and by_colour(pixels[opaque], palette, key.values, key.palette, file, key.filling):
        codes, known = palette[np.where(opaque, pixels, 0)], key.palette
    values, unknown = looked_up(codes, known)
    wrong = unknown & opaque
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        code = int(codes[y, x])
        what = code if known is key.values else f"#{code:06x}"
        raise UserMistake(f"{file} holds {what} at (y {y}, x {x}), which is neither a class's nor void's.")
    values = np.where(opaque, values, -1)
    image = stem
    if NAME in facts:
        try:
            image = text(json.loads(facts[NAME]), NAME)
        except ValueError as error:
            raise UserMistake(f"{file} says in {NAME} what is no JSON.") from error
    points = np.argwhere(values >= 0) if thin is None else thinned(values, thin)
    return image, points, values


def _key(
    classes: Classes, values: Sequence[int] = (), void: int | None = None, void_colour: Colour | None = None
) -> Key:
    """Values are those given, else 0 to C - 1; void, 255, black and white are unlabelled where no class has them."""
    by_value = dict.fromkeys((255, classes.void if void is None else void), -1)
    by_value |= {value: number for number, value in enumerate(values or range(len(classes)))}
    own = [packed(*colour) for colour in colours_of(classes)]
    told = set() if void_colour is None else {packed(*void_colour)}
    filling = frozenset({0, 0xFFFFFF} - told - set(own))
    unlabelled = dict.fromkeys(filling | (told - set(own)), -1)
    by_own = unlabelled | {code: number for number, code in enumerate(own)}
    # made up from the 25th on are VOC's colours at other places than in VOC's own palette
    kept = len(DISTINCT) if tuple(colours_of(classes)) == distinct(len(classes)) else len(own)
    once = {code: number for number, code in enumerate(own[:kept]) if own.count(code) == 1}
    return Key(classes, by_value, by_own, unlabelled | once, filling)


def _key_of(path: Path) -> Key:
    """From a file classes.toml."""
    said = read_class_file(path, "surrogatepass")  # as alseg writes the names of any classes
    if not said.names:
        raise UserMistake(f"{path} must name a class or more.")
    void = default_void(len(said.names)) if said.void is None else said.void
    return _key(Classes(said.names, -1, said.colours), said.values, void, said.void_colour)
