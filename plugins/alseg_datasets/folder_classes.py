"""The classes of a user's own images: from a list of names or a TOML file, and how masks mean them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alseg.class_file import default_void, read_class_file
from alseg.colours import Colour, distinct, packed
from alseg.errors import UserMistake
from alseg.imagefiles import read_mask_and_palette
from alseg.palettes import by_colour, looked_up
from alseg.values import Classes


@dataclass(frozen=True)
class MaskReader:
    """Reads mask files as class values.

    values: the classes' values in the files where they are not 0 to C - 1. colours: what colour pictures are
    read by, class values of packed RGB. Both hold void's as well; None where not stated. plain: 0 to C - 1 and void,
    where there are colours and no values.
    """

    values: Mapping[int, int] | None = None
    colours: Mapping[int, int] | None = None
    plain: Mapping[int, int] | None = None

    def __call__(self, path: Path) -> np.ndarray:
        """Integer [H, W]; UserMistake names the file and the first pixel that is no class."""
        pixels, palette = read_mask_and_palette(path)
        if pixels.ndim == 2:
            if palette is not None and self._by_colour(pixels, palette, path):
                return _looked_up(palette[pixels], self.colours or {}, path, str)
            return self._plain(pixels, path) if self.values is None else _looked_up(pixels, self.values, path, str)
        if pixels.shape[2] != 3:
            raise UserMistake(f"The mask {path} has {pixels.shape[2]} channels; it must hold class values or colours.")
        if self.colours is None:
            raise UserMistake(
                f"The mask {path} is a colour picture: give the classes' colours in classes.toml, or save class values."
            )
        codes = packed(*np.moveaxis(pixels.astype(np.int64), 2, 0))
        return _looked_up(codes, self.colours, path, lambda code: str(_unpacked(code)))

    def _by_colour(self, indices: np.ndarray, palette: np.ndarray, path: Path) -> bool:
        known = self.plain if self.values is None else self.values
        return bool(known and self.colours) and by_colour(indices, palette, known or {}, self.colours or {}, path)

    def _plain(self, pixels: np.ndarray, path: Path) -> np.ndarray:
        """As they are; what they hold is checked here where void has a colour as well, which only this reader knows."""
        if self.plain is None or self.colours is None:
            return pixels
        *classes, void = self.plain
        wrong = ~np.isin(pixels, list(self.plain))
        coloured = next((code for code, value in self.colours.items() if value == void), None)
        if wrong.any() and coloured is not None:
            y, x = (int(v) for v in np.argwhere(wrong)[0])
            raise UserMistake(
                f"The mask {path} holds the value {int(pixels[y, x])} at (y {y}, x {x}): by value classes go from 0 to "
                f"{classes[-1]} and void is {void}, by colour void is {_unpacked(coloured)}."
            )
        return pixels


def _looked_up(codes: np.ndarray, known: Mapping[int, int], path: Path, shown: Any) -> np.ndarray:
    values, wrong = looked_up(codes, known)
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise UserMistake(
            f"The mask {path} holds {shown(int(codes[y, x]))} at (y {y}, x {x}), which is neither a class's nor void's."
        )
    return values


def named_classes(names: Sequence[str]) -> tuple[Classes, MaskReader]:
    """Classes by name alone: masks hold 0 to C - 1, and 255 (65535 from 256 classes on) is void."""
    return _classes(names, (), "--classes"), MaskReader()


def read_classes(path: Path) -> tuple[Classes, MaskReader]:
    """Classes from a file classes.toml."""
    said = read_class_file(path)
    classes = _classes(said.names, said.colours, str(path))
    default, void = classes.void, said.void
    if void is None and default not in said.values:
        void = default
    if said.void is not None and not said.values:  # the masks' own value; beside `values` it becomes the default
        classes = Classes(classes.names, said.void, classes.colours)
    void_colour = None if said.void_colour is None else packed(*said.void_colour)
    return classes, MaskReader(
        _keyed(said.values, void, classes.void),
        _keyed([packed(*colour) for colour in said.colours], void_colour, classes.void),
        {value: value for value in (*range(len(classes)), classes.void)} if said.colours and not said.values else None,
    )


def _classes(names: Sequence[str], colours: Sequence[Colour], where: str) -> Classes:
    if not all(name.strip() for name in names):
        raise UserMistake(f"{where} must give each class a name.")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise UserMistake(f"{where} names the class {twice[0]!r} twice.")
    if len(names) < 2:
        raise UserMistake(f"{where} must name two classes or more; where one thing matters, the other is background.")
    return Classes(tuple(names), default_void(len(names)), tuple(colours) or distinct(len(names)))


def _keyed(codes: Sequence[int], void: int | None, void_class: int) -> dict[int, int] | None:
    """Class by value or colour, void's included."""
    found = {code: value for value, code in enumerate(codes)}
    return (found if void is None else found | {void: void_class}) if codes else None


def _unpacked(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255
