"""`alseg plugins`, `alseg plugins show` and `alseg plugins new`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from alseg.errors import AlsegError, UserMistake
from alseg.pieces import GIVEN, Piece, Plugin
from alseg.plugins import Registry
from alseg.scaffold import KINDS, REGISTERED, write_package

EPILOG = """Examples:

alseg plugins --kind acquirer

alseg plugins show margin

alseg plugins new my_acquirer --kind acquirer
"""


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(invoke_without_command=True, no_args_is_help=False)
    group.callback(epilog=EPILOG)(plugins)
    group.command("show", epilog="Example: alseg plugins show margin")(show)
    group.command("new", epilog="Example: alseg plugins new my_acquirer --kind acquirer")(new)
    app.add_typer(group, name="plugins")


def plugins(
    context: typer.Context,
    kind: str = typer.Option(None, help="Only pieces of this kind."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List every registered piece, where it comes from and its options; a plugin that failed with its error.

    A plugin that adds commands, or has no piece, is listed with its commands and hooks.

    What is listed as power:NAME modifies another piece of its kind, such as power:margin.
    """
    if context.invoked_subcommand is not None:
        return
    registry: Registry = context.obj
    rows = listing(registry, _known(kind))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _show_table(rows)
    for plugin in registry.plugins:
        if plugin.warning:
            typer.echo(f"alseg: The plugin {plugin.name} of {plugin.distribution}: {plugin.warning}.", err=True)


def show(
    context: typer.Context,
    name: str = typer.Argument(metavar="NAME", help="A piece's, a plugin's or its command's name."),
    kind: str = typer.Option(None, help="Only a piece of this kind."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show what a piece is, each of its options with type and default, and which plugin it comes from.

    Of a plugin, and of a command that a plugin adds, show the plugin's hooks and commands.
    """
    registry: Registry = context.obj
    found = _pieces_called(registry, name, _known(kind))
    named = [each for each in registry.plugins if name.replace("-", "_") == each.name.replace("-", "_")]
    bare = [plugin for plugin in named if plugin.status != "ok" or not (found or kind)]
    if kind is None:
        bare += [plugin for plugin in registry.plugins if plugin not in bare and name in _commands(registry, plugin)]
    if not found and not bare:
        from alseg.names import nearest

        names = [piece.name for piece in registry.pieces if kind is None or piece.kind == kind]
        if kind is None:
            names += [name for plugin in registry.plugins for name in (plugin.name, *_commands(registry, plugin))]
        raise UserMistake(f"There is no piece {name!r}{nearest(name, names)}; `alseg plugins` lists all.")
    described = [_described(registry, piece) for piece in found]
    described += [_plugin_row(registry, plugin) for plugin in bare]
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    for number, row in enumerate(described):
        if number:
            typer.echo("")
        _show_one(row)


def new(
    context: typer.Context,
    name: str = typer.Argument(metavar="NAME", help="Of the package, such as my_acquirer."),
    kind: str = typer.Option(..., help=f"What it adds: {', '.join(KINDS)}."),
    out: Path = typer.Option(None, metavar="DIR", help="Where to write it; by default a folder of its name."),
) -> None:
    """Write a small package with one piece, its entry point and its tests: the beginning of a plugin.

    Of kind modifier it modifies acquirers; of kind hooks or command it has no piece, and is called in every run or is a
    command of alseg's.
    """
    registry: Registry = context.obj
    piece = name.replace("_", "-")
    _refuse_taken(registry, piece, kind)
    place = write_package(name, kind, out)
    where = shlex.quote(str(place))
    typer.echo(f"{place} has the {kind} {piece}. Install it once, then look at it and test it:\n")
    for line in (f"pip install -e {where}", f"alseg plugins show {piece}", f"python -m pytest {where}"):
        typer.echo(f"  {line}")


def _refuse_taken(registry: Registry, name: str, kind: str) -> None:
    for piece in registry.pieces:
        if (piece.kind, piece.name) == (REGISTERED.get(kind, kind), name):
            raise UserMistake(f"{piece.described()} is there already: take another name.")


def _known(kind: str | None) -> str | None:
    if kind is not None and kind not in GIVEN:
        raise UserMistake(f"There is no kind {kind!r}; there are {', '.join(GIVEN)}.")
    return kind


def listing(registry: Registry, kind: str | None = None) -> list[dict[str, Any]]:
    """A row a piece, by kind and name, and a row a plugin that failed, has commands or no piece.

    Those have neither kind nor options.
    """
    kinds = list(GIVEN)
    pieces = sorted(registry.pieces, key=lambda piece: (kinds.index(piece.kind), piece.name, piece.plugin.origin))
    rows = [_described(registry, piece) for piece in pieces if kind is None or piece.kind == kind]
    with_pieces = {id(piece.plugin) for piece in pieces}
    bare = (
        plugin
        for plugin in sorted(registry.plugins, key=lambda plugin: (plugin.name, plugin.origin))
        if plugin.status != "ok" or (kind is None and (id(plugin) not in with_pieces or _commands(registry, plugin)))
    )
    return rows + [_plugin_row(registry, plugin) for plugin in bare]


def _plugin_row(registry: Registry, plugin: Plugin) -> dict[str, Any]:
    row = _row(plugin.name, None, plugin, plugin.status, plugin.error, [])
    if plugin.status != "ok":
        return row
    commands, says = _commands(registry, plugin), f"Its hooks: {', '.join(registry.hooks_of(plugin))}."
    if commands:
        says += f" Its commands: {', '.join(f'alseg {command}' for command in commands)}."
    return row | {"says": says, "commands": commands}


def _commands(registry: Registry, plugin: Plugin) -> list[str]:
    return registry.commands.get(f"{plugin.distribution}:{plugin.name}", [])


def _pieces_called(registry: Registry, name: str, kind: str | None) -> list[Piece]:
    """The pieces of a name in every kind; also distribution:name and modifier:name."""
    found = [piece for piece in registry.pieces if piece.name == name and kind in (None, piece.kind)]
    if found or ":" not in name:
        return found
    for each in GIVEN if kind is None else (kind,):
        try:
            found.append(registry.find(each, name))
        except UserMistake:
            continue
    return found


def _described(registry: Registry, piece: Piece) -> dict[str, Any]:
    status, error, options = "ok", None, []
    try:
        options = [option.describe() for option in piece.options().values()]
    except AlsegError as problem:
        status, error = "failed", str(problem).rstrip(".")
    modifier = piece.is_modifier and piece.inner is None
    row = _row(piece.name, piece.kind, piece.plugin, status, error, options, modifier)
    return row | {"written": registry.written(piece), "says": piece.explanation()}


def _row(
    name: str,
    kind: str | None,
    plugin: Plugin,
    status: str,
    error: str | None,
    options: Sequence[Any],
    modifier: bool = False,
) -> dict[str, Any]:
    return {
        "name": name,
        "written": name,
        "kind": kind,
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "origin": plugin.origin,
        "modifier": modifier,
        "options": options,
        "status": status,
        "error": error,
        "warning": plugin.warning,
    }


def _show_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from alseg.cli.display import show_table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from", "options"):
        table.add_column(title, overflow="fold")
    for row in rows:
        words = in_words(row["options"])
        if row["error"]:
            words = f"{row['status']}: {row['error']}"
        elif row["kind"] is None:
            words = row["says"]
        style = "red" if row["error"] else ""
        cells = (row["kind"] or "plugin", _written(row), row["origin"], words)
        table.add_row(*(Text(str(cell), style) for cell in cells))
    show_table(table)


def in_words(options: Sequence[Mapping[str, Any]]) -> str:
    """Options with their defaults in one line."""
    return ", ".join(o["name"] if o["required"] else f"{o['name']}={o['default']}" for o in options)


def _written(row: Mapping[str, Any]) -> str:
    return f"{row['written']}:NAME" if row["modifier"] else str(row["written"])


def _show_one(row: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from alseg.cli.display import show_table

    typer.echo(f"{row['kind'] or 'plugin'} {_written(row)}, of {row['origin']}")
    for line in (row.get("says"), row["error"] and f"failed: {row['error']}", row["warning"]):
        if line:
            typer.echo(f"\n{line}")
    if not row["options"]:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("option", "takes", "default"):
        table.add_column(title, overflow="fold")
    for option in row["options"]:
        default = "must be given" if option["required"] else _shown(option["default"])
        cells = (f"{prefix_of(row)}.{option['name']}", option["type"], default)
        table.add_row(*(Text(cell) for cell in cells))
    typer.echo("")
    show_table(table)


def prefix_of(row: dict[str, Any]) -> str:
    """What the settings of a piece's options begin with: of pieces of which several are taken their own name."""
    return str(row["name"] if row["kind"] in ("term", "tracker") else row["kind"])


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
