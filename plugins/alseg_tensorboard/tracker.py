"""A run in TensorBoard: what its life-cycle hooks tell, as scalars, texts, histograms and pictures."""

from __future__ import annotations

import hashlib
import html
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from alseg.hookspecs import hookimpl
from alseg.tracking import metrics_of, parameters_of, query_pictures, questions_of, records_of

SHOWN = 100  # questions in a round's text


class TensorBoard:
    """Writes event files as the run goes; the step is the round."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @hookimpl
    def run_started(self, folder: str, settings: dict[str, Any]) -> None:
        """Open the event files; what an earlier process wrote is written again, with what a kill kept it from."""
        run = Path(folder)
        place = run / "tensorboard" if self._folder is None else self._folder / name_of(run)
        self._writer = SummaryWriter(str(place), purge_step=0)
        rows = (f"| {name} | {_cell(value)} |" for name, value in parameters_of(settings).items())
        self._writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *rows]), 0)
        for record in records_of(folder):
            self._write(run, record)
        self._writer.flush()

    @hookimpl
    def round_finished(self, folder: str, record: dict[str, Any]) -> None:
        """A round's metrics, what was asked in it, and pictures of its questions, predictions and utilities."""
        self._write(Path(folder), record)
        self._writer.flush()

    def _write(self, folder: Path, record: dict[str, Any]) -> None:
        round = record["round"]
        for name, value in metrics_of(record).items():
            self._writer.add_scalar(name, value, round)
        self._write_questions(folder, round)
        samples = folder / "rounds" / f"{round:02}" / "samples"
        for path in sorted(samples.glob("*.png")):
            number, _, what = path.stem.partition("-")
            with Image.open(path) as picture:
                self._picture(f"{what}/{number}", picture.convert("RGB"), round)

    def _write_questions(self, folder: Path, round: int) -> None:
        asked = questions_of(folder, round)
        for name in ("utility", "entropy", "probability"):
            values = [question[name] for question in asked if question[name] is not None]
            if values:
                self._writer.add_histogram(f"queries/{name}", np.array(values), round)
        if asked:
            self._writer.add_text("queries", _table(asked), round)
        for name, picture in query_pictures(folder, round):
            self._picture(f"queries/{name}", picture, round)

    @hookimpl
    def run_stopped(self, folder: str, reason: str) -> None:
        """What was asked last, where the run ends with it unanswered or unlearned."""
        if reason in ("waiting", "asked"):
            self._write_questions(Path(folder), len(records_of(folder)))
        self._writer.close()

    @hookimpl
    def run_finished(self, folder: str, records: list[dict[str, Any]]) -> None:
        """The run's figures."""
        for path in sorted((Path(folder) / "figures").glob("*.png")):
            with Image.open(path) as figure:
                self._picture(f"figures/{path.stem}", figure.convert("RGB"), len(records))
        self._writer.close()

    def _picture(self, name: str, picture: Image.Image, round: int) -> None:
        self._writer.add_image(name, np.asarray(picture), round, dataformats="HWC")


def name_of(run: Path) -> str:
    """A run's name among those of one folder: its own, and four letters of where it is, since names come again."""
    path = run.resolve()
    return f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:4]}"


def _table(asked: list[dict[str, Any]]) -> str:
    columns = ("image", "y", "x", "utility", "guess", "probability", "rival")
    rows = [" | ".join(_cell(question[column]) for column in columns) for question in asked[:SHOWN]]
    more = f"\n\nand {len(asked) - SHOWN} more" if len(asked) > SHOWN else ""
    head = [" | ".join(columns), " | ".join("---" for _ in columns)]
    return "\n".join(f"| {row} |" for row in (*head, *rows)) + more


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return html.escape(text).replace("|", "\\|").replace("\n", " ")
