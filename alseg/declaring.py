"""What a factory declares: parameters that can be no options, and defaults that their own types refuse."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from alseg.options import MISSING, SCALARS, Between, Option, convert, describe, lies_in

TYPES = "int, float, bool, str, Path, Literal[...], tuple[int, ...] and unions of them"


def fault_of(
    factory: Callable[..., Any], options: Mapping[str, Option], wraps: Sequence[str], kinds: Sequence[str]
) -> str:
    """What is wrong with a factory's options, in words; empty where nothing is.

    wraps: the parameters by which it takes another piece of its kind. kinds: all there are.
    """
    return next(_faults(factory, options, wraps, kinds), "")


def _faults(
    factory: Callable[..., Any], options: Mapping[str, Option], wraps: Sequence[str], kinds: Sequence[str]
) -> Iterator[str]:
    yield from _nameless(factory)
    if "name" in options:
        yield "an option must not be called 'name', which is the piece's own"
    for option in options.values():
        untyped = option.type is MISSING
        unknown = not untyped and not is_given_by_text(option.type)
        if option.name.removeprefix("new_") in kinds and (unknown or (untyped and option.default is MISSING)):
            yield (
                f"its parameter {option.name!r} is no option, and a modifier takes a piece of its own kind alone, as "
                f"{' or '.join(map(repr, wraps))}"
            )
        if untyped:
            yield f"its option {option.name!r} has no type: write {option.name}: TYPE, one of {TYPES}"
        elif unknown:
            shown = inspect.formatannotation(option.type)
            yield f"its option {option.name!r} is of type {shown}, which no text can give; options are of {TYPES}"
        elif option.default is not MISSING and not holds(option.default, option.type):
            none = (
                f": its type is then {inspect.formatannotation(option.type)} | None" if option.default is None else ""
            )
            yield (
                f"its option {option.name!r} takes {describe(option.type)}, which its own default {option.default!r} "
                f"is not{none}"
            )
        elif isinstance(option.default, str):
            made = convert(option.name, option.default, option.type)
            if made is not None and not isinstance(made, str):
                yield f"its option {option.name!r} makes {made!r} of its own default {option.default!r}: put str first"


def _nameless(factory: Callable[..., Any]) -> Iterator[str]:
    """Parameters that a factory declares itself and that have no name by which they could be given."""
    declared: Any = factory
    if inspect.isclass(factory):  # an inherited __init__, as nn.Module's, takes what it takes
        declared = vars(factory).get("__init__")
        if not inspect.isfunction(declared):
            return
    try:
        parameters = inspect.signature(declared).parameters.values()
    except ValueError:  # a builtin that tells nothing of itself
        return
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            yield f"its factory takes {stars}{parameter.name}, and an option is a parameter of its own name"
        elif parameter.kind is parameter.POSITIONAL_ONLY and parameter.name != "self":
            yield f"its factory takes {parameter.name!r} by position only, and options are given by name"


def is_given_by_text(kind: Any) -> bool:
    """Whether a flag's text can be made a value of this type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return True
    if origin is Annotated:
        return is_given_by_text(arguments[0])
    if origin in (Union, types.UnionType):
        return all(each is type(None) or is_given_by_text(each) for each in arguments)
    if origin is tuple:
        return bool(arguments) and all(each is Ellipsis or is_given_by_text(each) for each in arguments)
    return any(kind is each for each in SCALARS)


def holds(value: Any, kind: Any) -> bool:
    """Whether a value is of an option's type and in its range, as it stands; a list is as good as a tuple."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return holds(value, arguments[0]) and _in_ranges(value, arguments[1:])
    if origin in (Union, types.UnionType):
        return any(value is None if each is type(None) else holds(value, each) for each in arguments)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False
        each = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        return len(each) == len(value) and all(map(holds, value, each))
    if kind in (int, float):  # what is not finite cannot be given either
        numbers = int if kind is int else int | float
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind)


def _in_ranges(value: Any, limits: Sequence[Any]) -> bool:
    try:
        return lies_in(value, [each for each in limits if isinstance(each, Between)])
    except TypeError:  # what has no order
        return False
