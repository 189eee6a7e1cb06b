"""What `register(name, factory)` takes: a name that can be typed, and what builds a piece anew instead of the piece."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from alseg.errors import AlsegError
from alseg.names import with_article

NAME = re.compile(r"[a-z0-9]+([-_]+[a-z0-9]+)*")
NOT_NAMES = ("none",)  # which stands for no piece where several may be taken
# kind -> what by which a piece is told from a factory
METHODS = {
    "dataset": ("classes", "images"),
    "model": ("encode", "decode"),
    "oracle": ("ask", "collect"),
    "term": ("loss",),
}
# kind -> what its pieces are called with
CALLED = {
    "acquirer": ("batch",),
    "selector": ("batch", "utility", "n"),
    "executor": ("jobs", "logs", "watch"),
}
OF_OPTIONS = (int, float, str, "int", "float", "str")  # types by which a parameter is an option whatever its name


def check_registered(kind: str, name: Any, factory: Any) -> None:
    """AlsegError where a name is none, or what is registered builds no piece."""
    if not isinstance(name, str):
        raise AlsegError(f"register takes a name and a factory, and {name!r} is no name of {with_article(kind)}")
    if not NAME.fullmatch(name) or name in NOT_NAMES:
        other = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")
        such = other if NAME.fullmatch(other) and other not in NOT_NAMES else f"my-{kind}"
        raise AlsegError(
            f"the {kind} {name!r} has a name that cannot be typed as one: a name is of lower-case letters, digits, - "
            f"and _, such as {such!r}"
        )
    if _is_itself(kind, factory):
        raise AlsegError(f"the {kind} {name!r} is registered itself: {_instead(name, factory)}")
    if not callable(factory):
        raise AlsegError(
            f"the {kind} {name!r} is registered by {factory!r}, which builds nothing: {_instead(name, None)}"
        )


def is_made(kind: str, what: Any) -> bool:
    """Whether something is a piece already and no factory, where its methods tell; a function may be either."""
    if isinstance(what, type):
        return False
    if kind == "tracker":
        return any(hasattr(getattr(type(what), name, None), "alseg_impl") for name in dir(type(what)))
    return kind in METHODS and all(hasattr(what, name) for name in METHODS[kind])


def _is_itself(kind: str, what: Any) -> bool:
    """Whether something is a piece already, by its methods or by what it must be called with."""
    if kind == "recipe":
        return isinstance(what, Mapping)
    called = kind in CALLED and callable(what) and not isinstance(what, type)
    return is_made(kind, what) or (called and _is_called_as_a_piece(CALLED[kind], what))


def _is_called_as_a_piece(names: tuple[str, ...], what: Any) -> bool:
    """Whether something must be called with what pieces are called with, a factory being called with options alone."""
    try:
        parameters = inspect.signature(what).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    modifies = any(parameter.name.removeprefix("new_") in CALLED for parameter in required)
    if modifies or any(parameter.annotation in OF_OPTIONS for parameter in required):
        return False
    if inspect.isroutine(what) or isinstance(what, partial) or hasattr(what, "__wrapped__"):
        return tuple(parameter.name for parameter in required) == names
    return len(required) == len(names)


def _instead(name: str, what: Any) -> str:
    """What to register."""
    if what is None or isinstance(what, Mapping | partial) or inspect.isroutine(what):
        function = getattr(what, "__name__", "")
        built = function if function.isidentifier() else "..."
        return f"register a function that returns it, such as `register({name!r}, lambda: {built})`"
    return f"register its class or a function that builds it, such as `register({name!r}, {type(what).__name__})`"
