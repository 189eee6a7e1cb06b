"""The classes of a user's own images: from a list of names or a TOML file, and how masks mean them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageColor

from alseg.colours import Colour, distinct
from alseg.errors import UserMistake
from alseg.imagefiles import read_mask_and_palette
from alseg.names import nearest
from alseg.palettes import by_colour
from alseg.values import Classes

KEYS = ("names", "colours", "void", "values")


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
        red, green, blue = np.moveaxis(pixels.astype(np.int64), 2, 0)
        return _looked_up(red << 16 | green << 8 | blue, self.colours, path, lambda code: str(_unpacked(code)))

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
    keys, codes = np.array(sorted(known)), codes.astype(np.int64)
    place = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    wrong = keys[place] != codes
    if wrong.any():
        y, x = (int(v) for v in np.argwhere(wrong)[0])
        raise UserMistake(
            f"The mask {path} holds {shown(int(codes[y, x]))} at (y {y}, x {x}), which is neither a class's nor void's."
        )
    return np.array([known[key] for key in keys.tolist()])[place]


def named_classes(names: Sequence[str]) -> tuple[Classes, MaskReader]:
    """Classes by name alone: masks hold 0 to C - 1, and 255 (65535 from 256 classes on) is void."""
    return _classes(names, (), "--classes"), MaskReader()


def read_classes(path: Path) -> tuple[Classes, MaskReader]:
    """Classes from a TOML file: `names`, and if wanted `colours`, `void` (a value or a colour) and `values`."""
    try:
        table = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise UserMistake(f"Cannot read the classes {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserMistake(f"The classes {path} are not TOML: {error}.") from error
    for key in table:
        if key not in KEYS:
            raise UserMistake(f"{path} has {key!r}, which is no key of it{nearest(key, KEYS)}.")
    colours = [_colour(value, path) for value in _list(table.get("colours", []), "colours", path)]
    classes = _classes(_list(table.get("names", []), "names", path), colours, str(path))
    values = [_value(value, path) for value in _list(table.get("values", []), "values", path)]
    void = table.get("void")
    by_value = _value(void, path) if isinstance(void, int) else None
    void_colour = None if void is None or by_value is not None else _colour(void, path)
    if void_colour is not None and not colours:
        raise UserMistake(
            f"{path} has a colour as void, but no colours: give each class its own, or void as a mask's value."
        )
    void_value = classes.void if by_value is None and classes.void not in values else by_value
    classes = _with_void(classes, values, by_value, path)
    return classes, MaskReader(
        _keyed(values, void_value, classes.void, "values", path),
        _keyed([_packed(c) for c in colours], void_colour and _packed(void_colour), classes.void, "colours", path),
        {value: value for value in (*range(len(classes)), classes.void)} if colours and not values else None,
    )


def _classes(names: Sequence[Any], colours: Sequence[Colour], where: str) -> Classes:
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise UserMistake(f"{where} must give each class a name.")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise UserMistake(f"{where} names the class {twice[0]!r} twice.")
    if len(names) < 2:
        raise UserMistake(f"{where} must name two classes or more; where one thing matters, the other is background.")
    if colours and len(colours) != len(names):
        raise UserMistake(f"{where} has {len(names)} names and {len(colours)} colours: give one colour each.")
    void = 255 if len(names) <= 255 else 65535
    return Classes(tuple(names), void, tuple(colours) or distinct(len(names)))


def _with_void(classes: Classes, values: list[int], void: int | None, path: Path) -> Classes:
    """`void` is the mask value itself where masks hold 0 to C - 1; with `values` it is mapped to the default."""
    if values and len(values) != len(classes):
        raise UserMistake(f"{path} has {len(classes)} names and {len(values)} values: give one value each.")
    if void is None or values:
        return classes
    if not len(classes) <= void <= 65535:
        raise UserMistake(
            f"{path} has void = {void}: with {len(classes)} classes it goes from {len(classes)} to 65535, unless "
            "`values` gives the classes other values."
        )
    return Classes(classes.names, void, classes.colours)


def _keyed(codes: Sequence[int], void: int | None, void_class: int, key: str, path: Path) -> dict[int, int] | None:
    """Class by value or colour, void's included."""
    if not codes:
        return None
    found = {code: value for value, code in enumerate(codes)}
    if len(found) < len(codes) or void in found:
        raise UserMistake(f"{path} gives two classes, or a class and void, the same of its {key}.")
    return found if void is None else found | {void: void_class}


def _list(value: Any, key: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise UserMistake(f'{path} must have a list as {key}, such as names = ["road", "sky"].')
    return value


def _value(value: Any, path: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**31 - 1:
        raise UserMistake(f"{path} has {value!r} as a mask's value: these are whole numbers from 0.")
    return value


def _colour(value: Any, path: Path) -> Colour:
    """From [r, g, b] or a string that Pillow knows, such as "#804080"."""
    try:
        parts = list(ImageColor.getrgb(value)[:3]) if isinstance(value, str) else list(value)
        if len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts):
            return parts[0], parts[1], parts[2]
    except (ValueError, TypeError):
        pass
    raise UserMistake(f'{path} has the colour {value!r}: write [128, 64, 128] or "#804080".')


def _packed(colour: Colour) -> int:
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _unpacked(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255
