"""Pickles of plain values and numpy arrays, read without running anything that is in them.

A pickle is a program. Here it may build dicts, lists, tuples, texts, numbers and numpy arrays and nothing else: the
few names that numpy's arrays need are taken by stand-ins that only note what they are given, so that not even
numpy's own loading code sees it; every other name ends the reading.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from alseg.errors import UserMistake

KINDS = "biuf"  # of the arrays: truth values and numbers


class Refused(ValueError):
    """The pickle wants to do what only a program may."""


class _Named:
    """What stands for a name in a pickle: it can be called, and nothing in it can be changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("it changes a function")

    def __reduce__(self) -> NoReturn:
        raise Refused("it is not to be written again")


class _Type:
    """A dtype as noted: a code such as "b1", and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *rest: Any) -> None:
        if not isinstance(code, str) or code[:1] not in KINDS or not code[1:].isdigit():
            raise Refused(f"it holds an array of type {str(code)[:20]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """numpy's own, of a kind that holds no objects."""
        return np.dtype(self.order.replace("|", "") + self.code)


class _Array:
    """An array as noted: its shape, type, order and bytes."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        self.array = _array(kind, shape, content, "F" if fortran is True else "C")


def _array(kind: Any, shape: Any, content: Any, order: Any = "C") -> np.ndarray:
    if not isinstance(kind, _Type) or not isinstance(content, bytes) or order not in ("C", "F"):
        raise Refused("it holds an array of objects")
    if not isinstance(shape, tuple) or not all(type(side) is int and side >= 0 for side in shape):
        raise Refused("it holds an array of no shape")
    dtype = kind.dtype()
    if math.prod(shape) * dtype.itemsize != len(content):
        raise Refused("it holds an array whose size is not that of its content")
    return np.ndarray(shape, dtype, content, order=order).copy()


def _scalar(kind: Any, content: Any) -> Any:
    return _array(kind, (), content).item()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any) -> np.ndarray:
    return _array(kind, shape, bytes(content) if isinstance(content, bytearray) else content, order)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("it encodes what is no text")
    return text.encode("latin1")


def _bytes(*content: Any) -> bytes:
    if content:
        raise Refused("it makes bytes")
    return b""


def _names() -> dict[tuple[str, str], _Named]:
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "dtype"): _Type,
        ("numpy", "ndarray"): lambda *given: _Array(),
        ("_codecs", "encode"): _encode,  # bytes, as protocols 0 to 2 write them
        ("__builtin__", "bytes"): _bytes,
        ("builtins", "bytes"): _bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = lambda *given: _Array()
        names[f"{core}.multiarray", "scalar"] = _scalar
        names[f"{core}.numeric", "_frombuffer"] = _from_buffer
    return {name: _Named(make) for name, make in names.items()}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _names().get((module, name))
        if found is None:
            raise Refused(f"it names {module[:40]}.{name[:40]}")
        return found

    def persistent_load(self, identifier: Any) -> NoReturn:
        raise Refused("it refers to something outside itself")


def read_pickle(path: Path) -> Any:
    """What a pickle holds, its arrays as numpy arrays; UserMistake where it holds or does anything else."""
    try:
        with open(path, "rb") as file:
            return plain(_Reader(file).load(), 0)
    except Refused as error:
        raise UserMistake(
            f"{path} is refused: {error}, and only plain values and arrays of numbers are read from a pickle."
        ) from error
    except OSError as error:
        raise UserMistake(f"Cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # what broken pickles raise is not limited to UnpicklingError
        raise UserMistake(f"{path} is no pickle, or a broken one: {type(error).__name__}.") from error


def plain(value: Any, depth: int) -> Any:
    """A value with its noted arrays made whole; Refused where it holds anything else."""
    if depth > 4:
        raise Refused("it is nested deeper than query files are")
    if isinstance(value, dict):
        return {plain(key, depth + 1): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner, depth + 1) for inner in value]
    if isinstance(value, _Array) and value.array is not None:
        return value.array
    if value is None or isinstance(value, str | int | float | bool | np.ndarray):
        return value
    raise Refused(f"it holds a {type(value).__name__.lstrip('_')}")
