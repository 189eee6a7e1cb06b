"""The flags on how a person who answers is waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from alseg.answering import Attendance

PANEL = "When a person answers"
ATTENDANCE = ("wait", "browser", "host", "port")
WAIT: bool = typer.Option(
    None, "--wait/--no-wait", help="Wait for answers, or end until they are in.", rich_help_panel=PANEL
)
BROWSER: bool = typer.Option(None, "--browser/--no-browser", help="Open the page.", rich_help_panel=PANEL)
HOST: str = typer.Option(
    None, metavar="ADDRESS", help="Serve the page beyond this machine, with a token.", rich_help_panel=PANEL
)
PORT: int = typer.Option(
    None, metavar="N", min=1, max=65535, help="And its port; by default one that is free.", rich_help_panel=PANEL
)
CLOSE_VOTES: bool = typer.Option(
    None,
    "--close-votes",
    help="Let questions that have an answer wait for no other person's, and ask nothing again.",
    rich_help_panel=PANEL,
)


def attendance_of(**given: Any) -> Attendance | None:
    """What was given of the flags, or None where nothing was."""
    from alseg.answering import Attendance

    stated = {name: value for name, value in given.items() if value is not None}
    return Attendance(**stated) if stated else None
