"""The command `alseg my-piece`."""

from __future__ import annotations

from pathlib import Path

from alseg import UserMistake, hookimpl

ALSEG_API_VERSION = 1


@hookimpl
def register_commands(app):
    """Add it to alseg's Typer application."""

    @app.command("my-piece")
    def my_piece(run: Path) -> None:
        """Say how many labels a run has."""
        labels = run / "labels.jsonl"
        if not labels.exists():
            raise UserMistake(f"{run} is no run with labels: it has no labels.jsonl.")
        print(len(labels.read_text().splitlines()))
