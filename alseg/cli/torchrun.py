"""What the command line knows of torchrun, without torch."""

from __future__ import annotations

import os

import typer

from alseg.errors import UserMistake

TOGETHER = ("run", "resume")  # the commands of which several processes make a team


def rank() -> int:
    """This process's place among those that torchrun started; 0 for one that was started alone."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def check_command(name: str | None) -> None:
    """UserMistake where torchrun started several processes of a command that each would do whole."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1 or name in TOGETHER:
        return
    if rank():
        raise typer.Exit  # with code 0: at an error torchrun would end the process that is about to say it
    raise UserMistake(f"torchrun is for `alseg run` and `alseg resume`: start `alseg {name}` without it.")
