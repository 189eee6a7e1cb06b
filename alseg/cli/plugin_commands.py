"""The commands that plugins add: none under a name that is taken, and what one raises names its plugin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import typer

from alseg.calling import called
from alseg.plugins import Registry

NAMED = "alseg_command"  # the attribute of a callback whose errors name its plugin


def add_plugin_commands(app: typer.Typer, registry: Registry) -> list[str]:
    """Let plugins add theirs to alseg's own; a sentence on each that failed or is left out."""
    own = len(app.registered_commands), len(app.registered_groups), app.registered_callback
    seen = [own[0], own[1]]
    whose: dict[int, str] = {}  # by identity, of commands and groups

    def name_them(plugin: str) -> None:
        """Those that a plugin has just added."""
        distribution, _, name = plugin.rpartition(":")
        for added in [*app.registered_commands[seen[0] :], *app.registered_groups[seen[1] :]]:
            _name(added, f"of the plugin {name} of {distribution}")
            whose[id(added)] = plugin
        seen[:] = len(app.registered_commands), len(app.registered_groups)

    failures = registry.notify("register_commands", after=name_them, app=app)
    left_out = _without_twins(registry, app, *own)
    registry.commands.clear()
    for added in [*app.registered_commands[own[0] :], *app.registered_groups[own[1] :]]:
        if id(added) in whose:
            registry.commands.setdefault(whose[id(added)], []).append(_name_of(added))
    return [*failures, *left_out]


def _name(added: Any, whose: str, of: str = "") -> None:
    """Let what a command, or any command of a group, raises say whose it is."""
    group = getattr(added, "typer_instance", None)
    name = f"{of} {_name_of(added)}".strip()
    if callable(added.callback):
        added.callback = _named(added.callback, f"The command {name!r} {whose}")
    if group is None:
        return
    if group.registered_callback is not None and callable(group.registered_callback.callback):
        inner = group.registered_callback
        inner.callback = _named(inner.callback, f"The command {name!r} {whose}")
    for each in [*group.registered_commands, *group.registered_groups]:
        _name(each, whose, name)


def _named(callback: Callable[..., Any], name: str) -> Callable[..., Any]:
    if hasattr(callback, NAMED):  # a plugin may add one and the same group each time that it is asked
        return callback

    @functools.wraps(callback)
    def call(*arguments: Any, **options: Any) -> None:  # what it returns would be an exit code
        called(name, lambda: callback(*arguments, **options), passes=_of_the_command_line, names=False)

    setattr(call, NAMED, name)
    return call


def _of_the_command_line(error: BaseException) -> bool:
    """Ends of a command that are no failure, and what the command-line library says itself."""
    if isinstance(error, SystemExit | typer.Abort | BrokenPipeError):
        return True
    return isinstance(getattr(error, "exit_code", None), int)  # whichever copy of the library Typer uses


def _without_twins(registry: Registry, app: typer.Typer, commands: int, groups: int, callback: Any) -> list[str]:
    """Leave out what plugins added under a name that is taken, alseg's own being the first; a sentence on each.

    commands, groups: how many are alseg's own. callback: alseg's, which takes --version and its like.
    """
    said = []
    if app.registered_callback is not callback:
        said.append("A plugin replaced the callback of the command line, which is left out: alseg needs its own.")
        app.registered_callback = callback
    added = [*app.registered_commands[commands:], *app.registered_groups[groups:]]
    taken = {_name_of(each) for each in [*app.registered_commands[:commands], *app.registered_groups[:groups]]}
    for each in added:
        if (name := _name_of(each)) not in taken:
            taken.add(name)
            continue
        where = registry.plugin_of(getattr(getattr(each, "callback", None), "__module__", None) or "")
        said.append(
            f"The command {name!r} of {where or 'a plugin'} is left out, since there is one of this name already: "
            "its author has to rename it."
        )
        for found in (app.registered_commands, app.registered_groups):
            found[:] = [other for other in found if other is not each]  # type: ignore[misc]
    return said


def _name_of(added: Any) -> str:
    """Of a command or a group."""
    if isinstance(added.name, str) and added.name:
        return added.name
    return str(getattr(getattr(added, "callback", None), "__name__", "")).replace("_", "-")
