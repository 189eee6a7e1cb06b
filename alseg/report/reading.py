"""A run read for its report: nothing but files, no model and no data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alseg.errors import AlsegError
from alseg.store import RunFolder
from alseg.values import PixelLabel, Question

Record = dict[str, Any]


@dataclass(frozen=True)
class RunView:
    """A run's settings and what its finished rounds left."""

    folder: RunFolder
    settings: Mapping[str, Any]
    records: Sequence[Record]

    @classmethod
    def read(cls, path: Path) -> RunView:
        """A run as it is now; it may still be running."""
        folder = RunFolder(path)
        return cls(folder, folder.settings(), folder.rounds())

    @property
    def record(self) -> Mapping[str, Any]:
        """What run.toml says besides the settings."""
        record = self.settings.get("record", {})
        return record if isinstance(record, Mapping) else {}

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.path.resolve().name

    @property
    def title(self) -> str:
        """Its pieces and seed in a line."""
        names = (self._piece(kind) for kind in ("dataset", "acquirer", "selector"))
        return f"{', '.join(names)}, seed {self.settings.get('seed', '?')}"

    def _piece(self, kind: str) -> str:
        piece = self.settings.get(kind, {})
        return str(piece.get("name", "?") if isinstance(piece, Mapping) else piece)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names."""
        return tuple(self.record.get("classes", ()))

    @property
    def colours(self) -> tuple[str, ...]:
        """A CSS colour a class."""
        return tuple(self.record.get("colours", ())) or ("#808080",) * len(self.classes)

    @property
    def scored(self) -> list[Record]:
        """The rounds that were evaluated."""
        return [record for record in self.records if record["miou"] is not None]

    def minutes(self) -> list[float]:
        """Computing time up to the end of each round."""
        spent = [record["train_seconds"] + record["acquire_seconds"] for record in self.records]
        return [sum(spent[: i + 1]) / 60 for i in range(len(spent))]

    @cached_property
    def asked(self) -> list[list[Question]]:
        """The questions of each finished round, those that were picked with their pixel."""
        places = {label.item: (label.y, label.x) for label in self.labels}
        return [
            [q if q.y is not None else q._replace(y=places[q.item][0], x=places[q.item][1]) for q in questions]
            for questions in (self.folder.questions(record["round"]) or [] for record in self.records)
        ]

    @cached_property
    def labels(self) -> list[PixelLabel]:
        """All labelled pixels."""
        return list(self.folder.labels())

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The training images' (height, width)."""
        images = self.folder.images()
        return {line["image"]: (line["height"], line["width"]) for line in images if line["split"] == "train"}

    def label_counts(self) -> Counter[str]:
        """Labelled pixels by class."""
        return Counter(label.name for label in self.labels if label.name is not None)

    def confusion(self, round: int) -> np.ndarray | None:
        """A round's confusion matrix, rows truth; None where it was not evaluated."""
        path = self.folder.path / "rounds" / f"{round:02}" / "confusion.csv"
        if not path.exists():
            return None
        try:
            with open(path, newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            matrix = np.array([[int(cell) for cell in row[1:]] for row in rows], np.int64)
        except (ValueError, UnicodeDecodeError) as error:
            raise AlsegError(f"{path} is damaged: {error}.") from error
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise AlsegError(f"{path} is damaged: it is no square matrix.")
        return matrix
