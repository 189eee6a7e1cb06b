"""`alseg report`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

EPILOG = """Examples:

alseg report runs/shapes-margin-topk-then-uniform-0

alseg report runs/camvid-* --out comparison
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", epilog=EPILOG)(report)


def report(
    context: typer.Context,
    runs: list[Path] = typer.Argument(..., metavar="RUN...", help="Folders of runs, finished or not."),
    out: Path = typer.Option(
        None, metavar="DIR", help="Where to write; by default the run's folder, or `report` for several runs."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the page's path as JSON."),
) -> None:
    """Write a page with curves, tables and sample images on one run, or on several side by side.

    The page needs no network. Its figures are also written as PNG and SVG, in `figures` beside it.
    """
    from alseg.report.page import write_report

    page = write_report(runs, out or (runs[0] if len(runs) == 1 else Path("report")), registry=context.obj)
    typer.echo(json.dumps({"report": str(page)}) if as_json else f"report: {page}")
