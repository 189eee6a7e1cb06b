"""`alseg plugins`."""

from __future__ import annotations

import json
from typing import Any

import typer

from alseg.plugins import GIVEN, Registry


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plugins", epilog="Examples: alseg plugins --kind acquirer; alseg plugins --json")(plugins)


def plugins(
    context: typer.Context,
    kind: str = typer.Option(None, help="Only pieces of this kind."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List every registered piece, where it comes from and its options; a plugin that failed with its error.

    What is listed as power:NAME modifies another piece of its kind, such as power:margin.
    """
    registry: Registry = context.obj
    if kind is not None and kind not in GIVEN:
        from alseg.errors import UserMistake

        raise UserMistake(f"There is no kind {kind!r}; there are {', '.join(GIVEN)}.")
    rows = listing(registry, kind)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _show(rows)


def listing(registry: Registry, kind: str | None = None) -> list[dict[str, Any]]:
    """A row a piece, and a row a plugin that failed, which has neither kind nor options."""
    rows: list[dict[str, Any]] = []
    for piece in registry.pieces:
        if kind is None or piece.kind == kind:
            status, error, options = "ok", None, []
            try:
                options = [option.describe() for option in piece.options().values()]
            except Exception as problem:
                status, error = "failed", f"{type(problem).__name__}: {problem}"
            rows.append(_row(piece.name, piece.kind, piece.plugin, status, error, options, piece.is_modifier))
    for plugin in registry.plugins:
        if plugin.status != "ok":
            rows.append(_row(plugin.name, None, plugin, plugin.status, plugin.error, []))
    return rows


def _row(
    name: str, kind: str | None, plugin: Any, status: str, error: str | None, options: Any, modifier: bool = False
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "modifier": modifier,
        "options": options,
        "status": status,
        "error": error,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from alseg.cli.display import whole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "name", "from", "options"):
        table.add_column(title, overflow="fold")
    for row in rows:
        words = ", ".join(
            option["name"] if option["required"] else f"{option['name']}={option['default']}"
            for option in row["options"]
        )
        if row["error"]:
            words = f"{row['status']}: {row['error']}"
        origin = f"{row['distribution']} {row['version']}"
        style = "red" if row["error"] else ""
        name = f"{row['name']}:NAME" if row["modifier"] else row["name"]
        table.add_row(*(Text(str(cell), style) for cell in (row["kind"] or "plugin", name, origin, words)))
    console = Console()
    (console if console.is_terminal else whole(table)).print(table)
