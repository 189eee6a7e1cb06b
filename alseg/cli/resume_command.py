"""`alseg resume`."""

from __future__ import annotations

from pathlib import Path

import typer

from alseg.cli.attendance import BROWSER, CLOSE_VOTES, HOST, PORT, WAIT, attendance_of

EPILOG = """Examples:

alseg resume runs/shapes-margin-topk-then-uniform-0

alseg resume runs/shapes-margin-topk-then-uniform-0 --rounds 8 --budget 100
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("resume", epilog=EPILOG)(resume)


def resume(
    context: typer.Context,
    folder: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    rounds: int = typer.Option(None, metavar="N", help="Another number of rounds, to go on after the last."),
    budget: int = typer.Option(None, metavar="N", help="Another budget of pixels an image."),
    wait: bool = WAIT,
    browser: bool = BROWSER,
    host: str = HOST,
    port: int = PORT,
    close_votes: bool = CLOSE_VOTES,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Go on with a run that was interrupted, from its last finished phase."""
    from alseg.cli.display import result_alone, show_result, terminal_progress

    with terminal_progress() as progress, result_alone(json):
        from alseg import api

        result = api.resume(
            folder,
            rounds=rounds,
            budget=budget,
            attendance=attendance_of(wait=wait, browser=browser, host=host, port=port, close_votes=close_votes),
            registry=context.obj,
            progress=progress,
        )
    show_result(result, json)
