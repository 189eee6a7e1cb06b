"""`alseg resume`."""

from __future__ import annotations

from pathlib import Path

import typer

from alseg.cli.attendance import BROWSER, CLOSE_VOTES, HOST, PORT, WAIT, attendance_of
from alseg.cli.run_flags import DATA_MOVED

EPILOG = """Examples:

alseg resume runs/shapes-margin-topk-then-uniform-0

alseg resume runs/shapes-margin-topk-then-uniform-0 --rounds 8 --budget 100

alseg resume runs/camvid-margin-topk-then-uniform-0 --data /mnt/CAMVID

alseg resume runs/shapes-margin-topk-then-uniform-0 --trackers mlflow -o mlflow.uri=http://HOST:5000
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("resume", epilog=EPILOG)(resume)


def resume(
    context: typer.Context,
    folder: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    rounds: int = typer.Option(None, metavar="N", help="Another number of rounds, to go on after the last."),
    budget: int = typer.Option(None, metavar="N", help="Another budget of pixels an image."),
    data: str = DATA_MOVED,
    weights: str = typer.Option(None, metavar="FILE", help="Where the run's pretrained weights lie now."),
    trackers: str = typer.Option(None, metavar="A,B|none", help="Other trackers; those that stay keep their options."),
    option: list[str] = typer.Option(
        [], "-o", metavar="TRACKER.KEY=VALUE", help="An option of a tracker. May be repeated."
    ),
    wait: bool = WAIT,
    browser: bool = BROWSER,
    host: str = HOST,
    port: int = PORT,
    close_votes: bool = CLOSE_VOTES,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Go on with a run that was interrupted, from its last finished phase."""
    from alseg.cli.alone import result_alone
    from alseg.cli.display import show_result, terminal_progress

    with terminal_progress() as progress, result_alone(json):
        from alseg import api
        from alseg.config import parse_assignments

        options = parse_assignments(option)
        result = api.resume(
            folder,
            rounds=rounds,
            budget=budget,
            data=data,
            weights=weights,
            trackers=options.pop("trackers", None) if trackers is None else trackers,  # as `alseg run` takes them
            tracker_options=options,
            attendance=attendance_of(wait=wait, browser=browser, host=host, port=port, close_votes=close_votes),
            registry=context.obj,
            progress=progress,
        )
    show_result(result, json)
