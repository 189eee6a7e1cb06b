"""The tracker `my-piece`: alseg run --trackers my-piece."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from alseg import hookimpl

ALSEG_API_VERSION = 1


class MyPiece:
    """Its methods are life-cycle hooks, called as the run goes; one that raises is reported and ends no run."""

    def __init__(self, file: str) -> None:
        self._file = file

    @hookimpl
    def run_started(self, folder: str, settings: dict[str, Any]) -> None:
        """A run begins or goes on."""

    @hookimpl
    def round_finished(self, folder: str, record: dict[str, Any]) -> None:
        """A round is recorded."""
        with (Path(folder) / self._file).open("a", newline="") as file:
            csv.writer(file).writerow([record["round"], record["pixels_per_image"], record["miou"]])

    @hookimpl
    def run_finished(self, folder: str, records: list[dict[str, Any]]) -> None:
        """A run is complete."""


def my_piece(file: str = "curve.csv") -> MyPiece:
    """The learning curve as a table `file` in the run's folder."""
    return MyPiece(file)


@hookimpl
def register_trackers(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
