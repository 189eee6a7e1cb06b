"""A small picture around a labelled pixel, so that an answer can be looked at again without the data."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from alseg.imagefiles import encoded, shrunk
from alseg.report.agreement import Answered, answered, examples, likeliest_mistakes
from alseg.store import RunFolder, read_lines
from alseg.values import Question

SHARE = 0.2  # of the image's longer side
LEAST, SHOWN = 64, 112  # pixels of the image in a crop at least, and of the picture at most


class Window(NamedTuple):
    """The part of an image that a crop shows, in its pixels."""

    top: int
    left: int
    height: int
    width: int


class Crop(NamedTuple):
    """A picture's JPEG, and where in it the pixel lies, in fractions."""

    content: bytes
    y: float
    x: float


def window(y: int, x: int, height: int, width: int) -> Window:
    """A square around (y, x), moved into the image; the image's own side where that is shorter."""
    side = max(LEAST, round(SHARE * max(height, width)))
    tall, wide = min(side, height), min(side, width)
    return Window(min(max(0, y - tall // 2), height - tall), min(max(0, x - wide // 2), width - wide), tall, wide)


def place_of(folder: RunFolder, item: str) -> Path | None:
    """Where an item's crop is kept; None where its name makes no file name."""
    return folder.path / "samples" / "pixels" / f"{item}.jpg" if re.fullmatch(r"[\w-]+", item) else None


def worth_showing(folder: RunFolder) -> list[Answered]:
    """The answers that a report shows one by one, as the run's files stand now."""
    labels = folder.labels()
    last = max((label.round for label in labels), default=-1)
    asked = [_placed(folder.questions(round) or []) for round in range(last + 1)]
    pairs = [answered(questions, labels) for questions in asked]
    return [*likeliest_mistakes(pair for of in pairs for pair in of), *(examples(pairs[-1]) if pairs else [])]


def _placed(questions: Iterable[Question]) -> list[Question]:
    return [question for question in questions if question.guess is not None]


def as_jpeg(picture: Image.Image) -> bytes:
    """The picture, not larger than a crop is shown."""
    return encoded(shrunk(picture.convert("RGB"), SHOWN, Image.Resampling.BOX), "JPEG", quality=80)


def crop_of(folder: RunFolder, pair: Answered, size: tuple[int, int] | None) -> Crop | None:
    """The kept crop of an answer's pixel, else one out of a sample image; None without either.

    size: the image's (height, width).
    """
    if size is None:
        return None
    label = pair.label
    part = window(label.y, label.x, *size)
    inside = ((label.y + 0.5 - part.top) / part.height, (label.x + 0.5 - part.left) / part.width)
    path = place_of(folder, label.item)
    with contextlib.suppress(OSError, ValueError, SyntaxError):  # a picture less is no reason for no page
        if path is not None and path.exists():
            with Image.open(path) as picture:
                picture.load()  # what is damaged is left out
            return Crop(path.read_bytes(), *inside)
        return _out_of_sample(folder, label.image, part, inside)
    return None


def _out_of_sample(folder: RunFolder, image: str, part: Window, inside: tuple[float, float]) -> Crop | None:
    for number, line in enumerate(read_lines(folder.path / "samples" / "index.jsonl")):
        path = folder.path / "samples" / f"{number:02}-image.jpg"
        if line["image"] == image and path.exists():
            with Image.open(path) as picture:
                down, across = picture.height / line["height"], picture.width / line["width"]
                left, top = part.left * across, part.top * down
                box = (left, top, left + part.width * across, top + part.height * down)
                cut = picture.convert("RGB").resize((SHOWN, round(SHOWN * part.height / part.width)), box=box)
            return Crop(as_jpeg(cut), *inside)
    return None
