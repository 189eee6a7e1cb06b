"""`alseg annotate`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from alseg.cli.attendance import BROWSER, CLOSE_VOTES, HOST, PORT, attendance_of
from alseg.cli.run_flags import DATA_MOVED

EPILOG = """Examples:

alseg annotate runs/folder-margin-topk-then-uniform-0

alseg annotate runs/folder-margin-topk-then-uniform-0 --no-browser --host 0.0.0.0

alseg annotate runs/folder-margin-topk-then-uniform-0 --close-votes
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("annotate", epilog=EPILOG)(annotate)


def annotate(
    context: typer.Context,
    folder: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    data: str = DATA_MOVED,
    browser: bool = BROWSER,
    host: str = HOST,
    port: int = PORT,
    close_votes: bool = CLOSE_VOTES,
    as_json: bool = typer.Option(False, "--json", help="Print what was answered as JSON."),
) -> None:
    """Open the page on the round that a run waits for, and leave its training for later.

    Each answer is on the disk before the page moves on. Ctrl-C stops; the same command goes on.
    """
    from alseg.attending import annotate as answer
    from alseg.cli.alone import result_alone
    from alseg.cli.display import terminal_progress
    from alseg.hints import command
    from alseg.store import RunFolder

    with terminal_progress() as progress, result_alone(as_json):
        attendance = attendance_of(browser=browser, host=host, port=port, close_votes=close_votes)
        run = RunFolder(folder)
        count = answer(run, data=data, registry=context.obj, attendance=attendance, progress=progress)
    number = len(run.rounds())
    if as_json:
        typer.echo(json.dumps({"run": str(run.path), "round": number, "answers": count}))
        return
    again = command(context.obj.files, "resume", run.path)
    typer.echo(f"Round {number} is answered: {count} pixels. {again} trains on them.")
