"""Hooks, protocols and values, and what `import alseg` gives."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import alseg
from alseg import answering, api, attending, hookspecs, predicting, protocols, values
from alseg.compare import jobs, worker
from alseg.given import FACTORIES
from alseg.interchange import exchange
from alseg.pieces import GIVEN, WRAPPED
from alseg.plugins import Registry
from reference_pages.source import described, fields_of
from reference_pages.words import MADE, cell, documentation, paragraphs, table

HOOKS = f"""# Hooks

{MADE}
A plugin is a module (or a single file) whose functions, marked by `@alseg.hookimpl`, have these names. A function may
take fewer of the arguments than are listed, never others. A working example of each:
[write a plugin](../guides/plugins.md).

"""
PROTOCOLS = f"""# Protocols and values

{MADE}
What the core asks of a piece, and what it hands to one. No base class is needed: an object with these methods
is the piece. How one is registered: [hooks](hooks.md). All names are to be had by `from alseg import NAME`, but for
those that say otherwise.

"""
PYTHON = f"""# Python

{MADE}
What `import alseg` gives. Importing it loads neither torch nor any plugin; a name that needs torch is imported
when it is first used. Usage: [use a run from Python](../guides/python.md).

"""
# what stands beside alseg.protocols, and is asked of a piece or handed to one
MORE = ((attending, ("OpenRound",)), (jobs, ("Executor", "Job", "Watch")))
# what the functions of `alseg` give and take, and does not need to be imported
GIVEN_BACK = (
    (api, "RunResult"),
    (predicting, "Predicted"),
    (exchange, "Transfer"),
    (answering, "Attendance"),
)
TESTING = "alseg.testing"
EXECUTORS = """## Executors

What an executor of one's own has besides its [protocols](protocols.md#executor). How they go together:
[write a plugin](../guides/plugins.md#an-executor).

"""


def hooks_of(module: ModuleType = hookspecs) -> list[Callable[..., Any]]:
    """The functions that are hooks, in the order of their source."""
    return [thing for thing in vars(module).values() if hasattr(thing, "alseg_spec")]


def hooks_page(registry: Registry) -> str:
    """docs/reference/hooks.md."""
    text = HOOKS + paragraphs(documentation(hookspecs).partition("\n\n")[2]) + "\n\n"
    rows = []
    for kind, given in GIVEN.items():
        wrapped = " or ".join(f"`{name}`" for name in WRAPPED[kind])
        fields = fields_of(FACTORIES[kind]) if given else []
        rows.append([kind, f"`register_{kind}s`", "; ".join(map(_stated, fields)), wrapped])
    text += table(["kind", "hook", "what the core gives its factory, where it takes it", "of a modifier"], rows) + "\n"
    return (text + "".join(described(hook, 2) for hook in hooks_of())).rstrip() + "\n"


def _stated(field: str) -> str:
    """A field of a class and its comment in a table's cell."""
    declared, _, comment = field.partition("#")
    return f"`{declared.strip()}`, {cell(comment)}"


def classes_of(module: ModuleType) -> list[type]:
    """The public classes that a module defines, in the order of its source."""
    own = [thing for thing in vars(module).values() if inspect.isclass(thing) and thing.__module__ == module.__name__]
    return [thing for thing in own if not thing.__name__.startswith("_")]


def protocols_page(registry: Registry) -> str:
    """docs/reference/protocols.md."""
    text = PROTOCOLS + paragraphs(documentation(protocols).partition("\n\n")[2]) + "\n\n## Protocols\n\n"
    text += "".join(described(thing, 3) for thing in classes_of(protocols))
    text += "".join(_imported(module, name) for module, names in MORE for name in names)
    text += f"## Values\n\n{paragraphs(documentation(values).partition(chr(10) * 2)[2])}\n\n"
    return (text + "".join(described(thing, 3) for thing in classes_of(values))).rstrip() + "\n"


def _imported(module: ModuleType, name: str) -> str:
    """A class that `import alseg` does not give, with where it is imported from."""
    heading, _, rest = described(getattr(module, name), 3).partition("\n\n")
    return f"{heading}\n\n`from {module.__name__} import {name}`\n\n{rest}"


def python_page(registry: Registry) -> str:
    """docs/reference/python.md."""
    elsewhere = {thing.__name__ for module in (protocols, values) for thing in classes_of(module)}
    names = [name for name in alseg.__all__ if name not in elsewhere]
    text, rest = PYTHON, []
    for name in names:
        thing = getattr(alseg, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            text += described(thing, 2)
        else:
            rest.append([f"`{name}`", cell(_said_of(name))])
    text += "".join(described(getattr(module, name), 2) for module, name in GIVEN_BACK)
    text += "## Other names\n\n" + table(["name", ""], rest) + "\n"
    links = ", ".join(f"[{name}](protocols.md#{name.lower()})" for name in alseg.__all__ if name in elsewhere)
    text += f"Protocols and values, on a page of their own: {links}.\n\n"
    return (text + _executors() + _testing()).rstrip() + "\n"


def _said_of(name: str) -> str:
    return {
        "hookimpl": "The mark of a function that implements a hook.",
        "API_VERSION": f"The version of protocols, values and hooks, {alseg.API_VERSION}; a plugin's module may say "
        "the one it was written for as `ALSEG_API_VERSION`.",
    }[name]


def _executors() -> str:
    """What there is for whoever writes an executor."""
    text = EXECUTORS
    for module in (jobs, worker):
        names = [name for name in module.__all__ if name not in dict(MORE)[jobs]]
        text += f"### {module.__name__}\n\n{paragraphs(documentation(module))}\n\n"
        text += "".join(described(getattr(module, name), 4) for name in names)
    return text


def _testing() -> str:
    """What there is for the tests of a plugin's author."""
    if importlib.util.find_spec(TESTING) is None:
        return ""
    module = importlib.import_module(TESTING)
    public = getattr(module, "__all__", [name for name in vars(module) if name.startswith("check_")])
    text = f"## {TESTING}\n\n{paragraphs(documentation(module))}\n\n"
    return text + "".join(described(getattr(module, name), 3) for name in public if callable(getattr(module, name)))
