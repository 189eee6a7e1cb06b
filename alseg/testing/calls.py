"""Wrong calls of the kit, told in a sentence that says how it is called."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from functools import wraps
from numbers import Integral, Real
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from alseg.errors import UserMistake
from alseg.options import Between, convert, lies_in, options_of
from alseg.testing.contract import Report

P = ParamSpec("P")
T = TypeVar("T")
# what stands for a piece is looked at where it is found, checks that are left out where all are known
ELSEWHERE = ("around", "model", "skip")
TAKES = {
    "options": "the piece's options by name, such as {'size': 3}",
    "model_options": "the model's options by name, such as {'width': 8}",
    "settings": "settings by their names, such as {'dataset.count': 3}",
    "name": "the name of a factory for messages",
    "registry": "what alseg.load_plugins(...) gives",
    "classes": "a whole number",
    "most": "a whole number",
    "size": "height and width, such as (64, 64)",
    "uncertainty": "True or False",
    "reply": "a function of the oracle and the questions",
    "patience": "a number of seconds",
    "place": "a pathlib.Path",
}


def explains_wrong_calls(check: Callable[P, Report]) -> Callable[P, Report]:
    """A function of the kit which, called with what it does not take, raises UserMistake with what it takes."""
    signature = inspect.signature(check)
    subject, *_ = signature.parameters  # the first parameter is what stands for the piece

    @wraps(check)
    def call(*args: P.args, **kwargs: P.kwargs) -> Report:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UserMistake(_told(check, signature, args, kwargs)) from error
        hints = get_type_hints(check, include_extras=True)
        for name, value in given.items():
            if name not in (subject, *ELSEWHERE) and not fits(value, hints[name]):
                limits = "".join(f", {each}" for each in ranges_of(hints[name]))
                raise UserMistake(f"The argument {name} of {_name(check)} takes {TAKES[name]}{limits}, not {value!r}.")
        return check(*args, **kwargs)

    return call


def refuses_unfit(make: Callable[P, T]) -> Callable[P, T]:
    """A function whose arguments are made to fit their types; UserMistake for one that does not."""
    signature, options = inspect.signature(make), options_of(make)

    @wraps(make)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            given.arguments[name] = convert(f"{name} of {make.__name__}", value, options[name].type)
        return make(*given.args, **given.kwargs)

    return call


def _name(check: Callable[..., Report]) -> str:
    return getattr(check, "__name__", "the check")


def _told(
    check: Callable[..., Report], signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str:
    keywords = [name for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY]
    called = f"{_name(check)}(FACTORY, OPTIONS, {', '.join(f'{name}=' for name in keywords)})"
    unknown = next((name for name in kwargs if name not in signature.parameters), None)
    if unknown is not None:
        return (
            f"{_name(check)} has no argument {unknown!r}: an option of the piece is given as "
            f"{{{unknown!r}: {kwargs[unknown]!r}}} after the factory; it is called {called}."
        )
    if len(args) > 2:
        return f"{_name(check)} takes {args[2]!r} by its name only: it is called {called}."
    if not args:
        return f"{_name(check)} lacks a factory or a registered name: it is called {called}."
    return f"{_name(check)} is given an argument twice: it is called {called}."


def ranges_of(hint: Any) -> list[Between]:
    """The ranges of a type, in which its numbers lie."""
    return [each for each in get_args(hint)[1:] if isinstance(each, Between)] if get_origin(hint) is Annotated else []


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as it is written: ranges, unions, tuples of a length, mappings, numbers."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, arguments[0]) and lies_in(value, ranges_of(hint))
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in arguments)
    if origin is tuple:
        return (
            isinstance(value, tuple | list)
            and len(value) == len(arguments)
            and all(fits(part, each) for part, each in zip(value, arguments, strict=True))
        )
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
    return isinstance(value, origin or hint)
