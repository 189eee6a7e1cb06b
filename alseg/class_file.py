"""classes.toml, which says the classes of masks and label images, and by which values or colours these mean them."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ImageColor

from alseg.colours import Colour
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.textfiles import read_small

KEYS = ("names", "colours", "void", "values")


@dataclass(frozen=True)
class ClassFile:
    """What the file says; colours and values are none or one a class.

    void: a mask's value; void_colour: void as a colour; None where the file does not say it so.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...] = ()
    values: tuple[int, ...] = ()
    void: int | None = None
    void_colour: Colour | None = None


def default_void(classes: int) -> int:
    """The value of void in masks of so many classes, where none is stated."""
    return 255 if classes <= 255 else 65535


def read_class_file(path: Path, errors: str = "strict") -> ClassFile:
    """A TOML file with `names`, and if wanted `colours`, `void` (a value or a colour) and `values`.

    errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it. UserMistake says what is wrong, and so
    where two classes, or a class and void, could not be told apart.
    """
    try:
        table = tomllib.loads(read_small(path, errors))
    except OSError as error:
        raise UserMistake(f"Cannot read the classes {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserMistake(f"The classes {path} are not TOML: {error}.") from error
    for key in table:
        if key not in KEYS:
            raise UserMistake(f"{path} has {key!r}, which is no key of it{nearest(key, KEYS)}.")
    names = _list(table, "names", path)
    if not all(isinstance(name, str) for name in names):
        raise UserMistake(f"{path} must give each class a name.")
    colours = [_colour(value, path) for value in _list(table, "colours", path)]
    values = [_value(value, path) for value in _list(table, "values", path)]
    void = table.get("void")
    by_value = _value(void, path) if isinstance(void, int) else None
    void_colour = None if void is None or by_value is not None else _colour(void, path)
    if void_colour is not None and not colours:
        raise UserMistake(
            f"{path} has a colour as void, but no colours: give each class its own, or void as a mask's value."
        )
    found = ClassFile(tuple(names), tuple(colours), tuple(values), by_value, void_colour)
    _refuse_mixed(found, path)
    return found


def _refuse_mixed(found: ClassFile, path: Path) -> None:
    """UserMistake where names, colours and values are not one a class, or not each another's."""
    count = len(found.names)
    twice = [name for name in found.names if found.names.count(name) > 1]
    if twice:
        raise UserMistake(f"{path} names the class {twice[0]!r} twice.")
    of_key: dict[str, tuple[Sequence[Hashable], Hashable]] = {
        "colours": (found.colours, found.void_colour),
        "values": (found.values, found.void),
    }
    for key, (codes, void) in of_key.items():
        if codes and len(codes) != count:
            raise UserMistake(f"{path} has {count} names and {len(codes)} {key}: give one {key[:-1]} each.")
        if len(set(codes)) < len(codes) or void in codes:
            raise UserMistake(f"{path} gives two classes, or a class and void, the same of its {key}.")
    if not (found.void is None or found.values or count <= found.void <= 65535):
        raise UserMistake(
            f"{path} has void = {found.void}: with {count} classes it goes from {count} to 65535, unless `values` "
            "gives the classes other values."
        )


def _list(table: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = table.get(key, [])
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
