"""Hooks `my-piece`: called in every run, as long as the package is installed; they register no piece.

What is to have options, or to be taken by some runs only, is a tracker: alseg plugins new NAME --kind tracker.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alseg import hookimpl

ALSEG_API_VERSION = 1
FILE = "my-piece.json"


@hookimpl
def run_started(folder: str, settings: dict[str, Any]) -> None:
    """A run begins or goes on; what this raises is reported, and the run goes on."""
    _write(folder, "running")


@hookimpl
def round_finished(folder: str, record: dict[str, Any]) -> None:
    """A round is recorded: `record` is its line of rounds.jsonl."""
    _write(folder, "running", round=record["round"], miou=record["miou"])


@hookimpl
def run_finished(folder: str, records: list[dict[str, Any]]) -> None:
    """A run is complete."""
    last = records[-1] if records else {}
    _write(folder, "finished", round=last.get("round"), miou=last.get("miou"))


@hookimpl
def run_stopped(folder: str, reason: str, message: str) -> None:
    """A run ends before it is complete: interrupted, waiting (for answers), failed or asked."""
    _write(folder, reason, message=message)


def _write(folder: str, state: str, **more: Any) -> None:
    """How the run stands, in one small file for whoever looks."""
    Path(folder, FILE).write_text(json.dumps({"state": state, **more}) + "\n")
