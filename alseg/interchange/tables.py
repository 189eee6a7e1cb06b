"""Labels as CSV: alseg's own table, which holds everything, and napari's points layers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alseg.errors import UserMistake
from alseg.interchange.fields import COLUMNS, DETAILS, MOST, label, real, shown, text, whole
from alseg.interchange.filenames import file_names
from alseg.interchange.labelset import LabelSet
from alseg.values import PixelLabel

NEEDED = ("image", "y", "x", "class")
AXES = ("axis-0", "axis-1")
NAPARI = ("index", *AXES, "class", "image", *DETAILS)
Row = Mapping[str, str]


class _Lines:
    """What csv.writer writes to: rows end in a newline, while fields with a lone carriage return stay quoted."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, row: str) -> None:
        self.parts.append(row.removesuffix("\r\n") + "\n")


def write_csv(labels: LabelSet) -> bytes:
    """All columns of all labels; an empty class is "can't tell"."""
    return _encoded(COLUMNS, ([row[name] for name in COLUMNS] for row in map(_row, labels.labels)))


def write_napari(labels: LabelSet) -> dict[str, bytes]:
    """A points layer an image; a point is at (y, x), which is a pixel's centre in napari."""
    found = labels.by_image()
    files = file_names({image: labels.file(image) for image in found}, ".csv")
    return {
        files[image]: _encoded(
            NAPARI,
            ([i, row["y"], row["x"], *(row[name] for name in NAPARI[3:])] for i, row in enumerate(map(_row, own))),
        )
        for image, own in found.items()
    }


def _row(found: PixelLabel) -> dict[str, object]:
    if found.name == "":
        raise UserMistake('A class has an empty name, which in a table means "can\'t tell": export to coco instead.')
    return {**found._asdict(), "class": found.name or "", "audit": "yes" if found.audit else ""}


def _encoded(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    lines = _Lines()
    writer = csv.writer(lines)
    writer.writerow(header)
    writer.writerows(rows)
    return "".join(lines.parts).encode("utf-8", "surrogatepass")


def read_csv(path: Path) -> LabelSet:
    """A table with the columns image, y, x and class, and any of the others, in any order."""
    labels = []
    for number, (line, row) in enumerate(_rows(path, NEEDED)):
        try:
            y, x = whole(row["y"], "y"), whole(row["x"], "x")
            labels.append(label(_image(row["image"]), y, x, row["class"] or None, row, number))
        except UserMistake as error:
            raise UserMistake(f"Line {line} of {path}: {error}") from error
    return LabelSet(tuple(labels))


def read_napari(path: Path) -> LabelSet:
    """Points layers: a file, or a folder of them; a point belongs to the pixel whose centre is nearest.

    A layer without a column image is of the image that its file is called by.
    """
    labels: list[PixelLabel] = []
    for file in napari_files(path):
        for line, row in _rows(file, (*AXES, "class")):
            try:
                if "axis-2" in row:
                    raise UserMistake("the layer has more than two axes: its images are no flat pictures.")
                y, x = (_nearest(real(row[axis], axis), axis) for axis in AXES)
                image = _image(row.get("image", file.stem))
                labels.append(label(image, y, x, row["class"] or None, row, len(labels)))
            except UserMistake as error:
                raise UserMistake(f"Line {line} of {file}: {error}") from error
    return LabelSet(tuple(labels))


def napari_files(path: Path) -> list[Path]:
    """The CSV files of a folder, nested or not, or the file itself."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*.csv") if not file.name.startswith("."))


def _nearest(value: float, axis: str) -> int:
    pixel = math.floor(value + 0.5)
    if not 0 <= pixel <= MOST:
        raise UserMistake(f"{axis} is {value:g}, which is outside any image.")
    return pixel


def _image(name: str) -> str:
    if not name:
        raise UserMistake("image is empty.")
    return text(name, "image")


class Header(NamedTuple):
    """A table's columns, and what separates its fields: a comma, semicolon or tab.

    spaced: whether there are spaces around the names, and so around the other fields, which are none of theirs.
    """

    separator: str
    names: list[str]
    spaced: bool


def header(path: Path, content: str) -> Header:
    """What the first row says; the names that are known are so in any case."""

    def first(separator: str, spaced: bool = False) -> list[str]:
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=spaced)
        try:
            return next(reader, [])
        except csv.Error as error:
            raise UserMistake(f"{path} is no CSV: {error}.") from error

    separator, names = max(((separator, first(separator)) for separator in ",;\t"), key=lambda found: len(found[1]))
    spaced = any(name != name.strip() for name in names)
    if spaced:
        names = [name.strip() for name in first(separator, spaced)]
    known = {*COLUMNS, *NAPARI} - set(names)
    return Header(separator, [name.lower() if name.lower() in known else name for name in names], spaced)


def decoded(path: Path) -> str:
    """A file's text; UserMistake where it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogatepass")
    except UnicodeDecodeError as error:
        raise UserMistake(f"{path} is not UTF-8: save it as CSV UTF-8.") from error
    except OSError as error:
        raise UserMistake(f"Cannot read {path}: {error.strerror}.") from error


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The line each row ends at, and its fields by column."""
    content = decoded(path)
    separator, names, spaced = header(path, content)
    missing = [name for name in needed if name not in names]
    if missing:
        raise UserMistake(f"{path} has no column {missing[0]}; it needs {', '.join(needed)}.")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserMistake(f"{path} has two columns {shown(twice[0])}.")
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, skipinitialspace=spaced)
    try:
        next(reader)
        for row in reader:
            if len(row) != len(names):
                if not row:
                    continue
                raise UserMistake(f"Line {reader.line_num} of {path} has {len(row)} fields, not {len(names)}.")
            yield reader.line_num, dict(zip(names, map(str.strip, row) if spaced else row, strict=True))
    except csv.Error as error:
        raise UserMistake(f"Line {reader.line_num} of {path} is no CSV: {error}.") from error
