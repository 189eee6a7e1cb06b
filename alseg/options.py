"""Typed values from text and TOML: the options of pieces and the settings of a run."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from alseg.errors import UserMistake
from alseg.paths import expanded

MISSING: Any = inspect.Parameter.empty
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


@dataclass(frozen=True)
class Between:
    """A range for a number, both ends included: `Annotated[int, Between(1)]`."""

    low: float
    high: float = math.inf

    def __str__(self) -> str:
        return f"at least {self.low:.12g}" if self.high == math.inf else f"from {self.low:.12g} to {self.high:.12g}"


@dataclass(frozen=True)
class Size:
    """Height and width in pixels, written HxW."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"

    def __iter__(self) -> Any:
        return iter((self.height, self.width))


@dataclass(frozen=True)
class Longer:
    """The size an image has when its longer side is scaled to this many pixels, written longer:400."""

    pixels: int

    def __str__(self) -> str:
        return f"longer:{self.pixels}"


@dataclass(frozen=True)
class Option:
    """A keyword parameter of a factory: its name, type and default; MISSING: it has none."""

    name: str
    type: Any
    default: Any

    def describe(self) -> dict[str, Any]:
        """For people and `--json`."""
        required = self.default is MISSING
        return {
            "name": self.name,
            "type": describe(self.type),
            "default": None if required else plain(self.default),
            "required": required,
        }


def options_of(factory: Callable[..., Any], given: tuple[str, ...] = ()) -> dict[str, Option]:
    """The options of a factory: its keyword parameters less those that the core gives."""
    return {
        name: Option(name, _type_of(parameter, factory), parameter.default)
        for name, parameter in parameters_of(factory).items()
        if name not in given
    }


def parameters_of(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a factory."""
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # a builtin that tells nothing of itself
        return {}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in variable}


def _type_of(parameter: inspect.Parameter, factory: Callable[..., Any]) -> Any:
    """A parameter's type as written, else its default's; MISSING where neither tells one.

    Each alone, so that names imported under TYPE_CHECKING do no harm.
    """
    annotation, default = parameter.annotation, parameter.default
    if annotation is MISSING:
        return Path if isinstance(default, Path) else type(default) if type(default) in SCALARS else MISSING
    if not isinstance(annotation, str):
        return annotation
    function = inspect.unwrap(factory.__init__ if inspect.isclass(factory) else factory)
    function = getattr(function, "func", function)  # of functools.partial
    try:
        return eval(annotation, getattr(function, "__globals__", {}))
    except Exception as error:
        raise TypeError(f"the type {annotation!r} of an option cannot be found: {error}") from error


def convert(key: str, value: Any, kind: Any) -> Any:
    """`value`, from a flag's text or from TOML, as `kind`; UserMistake names the key and what it takes."""
    try:
        return _convert(value, kind)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserMistake(f"{key} takes {describe(kind)}, not {_shown(value)}.") from error


def _convert(value: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _in_range(_convert(value, arguments[0]), [a for a in arguments[1:] if isinstance(a, Between)])
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        same = [choice for choice in arguments if type(value) is type(choice) and value == choice]
        same += [choice for choice in arguments if _as_text(value) == _as_text(choice)]
        if not same:
            raise ValueError
        return same[0]
    if origin is tuple:
        return _convert_tuple(value, arguments)
    convert_scalar = SCALARS.get(kind)
    return value if convert_scalar is None else convert_scalar(value)


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    if type(None) in arguments and (value is None or str(value).lower() == "none"):
        return None
    found: list[Any] = []
    failure: Exception = ValueError()
    for kind in arguments:
        if kind is not type(None):
            try:
                found.append(_convert(value, kind))
            except (ValueError, TypeError, OverflowError) as error:
                failure = error
    if not found:
        raise failure
    # a number of run.toml stays what it was there: 1.0 is no whole number where both may be
    kept = [] if isinstance(value, str) else [each for each in found if repr(plain(each)) == repr(plain(value))]
    return (kept or found)[0]


def _as_text(value: Any) -> str:
    """As a flag says it: none, true and false in any case."""
    text = str(value)
    return text.lower() if text.lower() in ("none", "true", "false") else text


def _convert_tuple(value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise ValueError
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ValueError
    return tuple(_convert(part, kind) for part, kind in zip(value, arguments, strict=True))


def _in_range(value: Any, ranges: list[Between]) -> Any:
    if not lies_in(value, ranges):
        raise ValueError
    return value


def lies_in(value: Any, ranges: Iterable[Between]) -> bool:
    """Whether a number, or each of several, lies in all ranges; None does."""
    numbers = [number for number in (value if isinstance(value, tuple | list) else (value,)) if number is not None]
    return all(limits.low <= number <= limits.high for limits in ranges for number in numbers)


def _int(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in (*YES, *NO):
        raise ValueError
    return text in YES


def _str(value: Any) -> str:
    if not isinstance(value, str | int | float | Path):
        raise ValueError
    return _written(str(value))


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError
    path = expanded(value).absolute()  # a run may be resumed from another folder
    _written(str(path))
    return path


def _written(text: str) -> str:
    """A text; UserMistake where the run's settings could not be written with it: bytes of another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserMistake(f"{text!r} is no UTF-8, which run.toml is written in: give it another name.") from error
    return text


def _size(value: Any) -> Size:
    if isinstance(value, Size):
        return value
    parts = value if isinstance(value, tuple | list) else str(value).lower().split("x")
    height, width = map(int, parts)
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        raise ValueError
    return Size(height, width)


def _longer(value: Any) -> Longer:
    if isinstance(value, Longer):
        return value
    word, _, pixels = str(value).partition(":")
    if word != "longer" or not 1 <= int(pixels) <= 65535:
        raise ValueError
    return Longer(int(pixels))


def fitted(size: Size | Longer | str | None, image: tuple[int, int]) -> tuple[int, int]:
    """The height and width an image of this size is scaled to; "own" and None leave it as it is."""
    if isinstance(size, Size):
        return size.height, size.width
    if isinstance(size, Longer):
        factor = size.pixels / max(image)
        return max(1, round(image[0] * factor)), max(1, round(image[1] * factor))
    return image


SCALARS: dict[Any, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    Path: _path,
    Size: _size,
    Longer: _longer,
}


def describe(kind: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *(str(a) for a in arguments[1:] if isinstance(a, Between))])
    if origin in (Union, types.UnionType):
        return " or ".join("none" if kind is type(None) else describe(kind) for kind in arguments)
    if origin is Literal:
        return " or ".join(map(_as_text, arguments))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a comma-separated list, each {describe(arguments[0])}"
        return f"{len(arguments)} comma-separated values, each {describe(arguments[0])}"
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        Size: "a size HxW in pixels such as 360x480",
        Longer: "longer:N, the longer side in pixels,",
    }
    return words.get(kind) or str(getattr(kind, "__name__", kind))


def plain(value: Any) -> Any:
    """`value` as TOML and JSON can hold it."""
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
