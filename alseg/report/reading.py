"""A run read for its report: nothing but files, no model and no data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from alseg.errors import AlsegError, UserMistake
from alseg.journal import Event
from alseg.report.agreement import Answered, answered
from alseg.report.effort import Act, read_acts, up_to_each_round
from alseg.store import RunFolder
from alseg.trust import agreement
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
        return f"{self.pieces}, seed {self.settings.get('seed', '?')}"

    @property
    def pieces(self) -> str:
        """Dataset, acquirer and selector in a line."""
        return ", ".join(self.piece(kind) for kind in ("dataset", "acquirer", "selector"))

    def piece(self, kind: str) -> str:
        """The name of the piece of a kind."""
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
    def answered(self) -> list[Answered]:
        """The questions of all finished rounds with their labels."""
        return answered((question for questions in self.asked for question in questions), self.labels)

    @cached_property
    def acts(self) -> list[Act]:
        """The key presses and clicks of people in the finished rounds; none where a program answered."""
        rounds = {question.item: number for number, asked in enumerate(self.asked) for question in asked}
        following = len(self.records)  # a round that may be open
        rounds |= {question.item: following for question in self.folder.questions(following) or ()}
        return [act for act in read_acts(self._events, rounds) if act.round < following]

    @cached_property
    def _events(self) -> list[Event]:
        return self.folder.journal.events()

    @cached_property
    def asked_twice(self) -> Mapping[str, Any]:
        """How often people answer alike, themselves and one another; see alseg.trust.agreement."""
        return agreement(self._events)

    def labelling_minutes(self) -> list[float] | None:
        """Time spent on answers and picks up to the end of each round; None where nobody measured any."""
        timed = [(act.round, act.seconds / 60) for act in self.acts if act.seconds is not None]
        return up_to_each_round(timed, len(self.records)) if timed else None

    def acts_so_far(self) -> list[float] | None:
        """Key presses and clicks up to the end of each round; None where a program answered."""
        return up_to_each_round([(act.round, 1) for act in self.acts], len(self.records)) if self.acts else None

    @cached_property
    def labels(self) -> list[PixelLabel]:
        """All labelled pixels."""
        labels = list(self.folder.labels())
        self.folder.check_labels(len(self.records), labels)
        return labels

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """The training images' (height, width)."""
        return self.folder.sizes()

    def label_counts(self) -> Counter[str]:
        """Labelled pixels by class, without those that only measure."""
        return Counter(label.name for label in self.labels if label.name is not None and not label.audit)

    def confusion(self, round: int) -> np.ndarray | None:
        """A round's confusion matrix, rows truth; None where it was not evaluated."""
        path = self.folder.in_round(round, "confusion.csv")
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


def refuse_unlike(views: Sequence[RunView], told: Mapping[str, Callable[[RunView], Any]], mend: str) -> None:
    """UserMistake where runs differ in something, by its name in the plural; mend: what to do then."""
    for what, of in told.items():
        first, other = views[0], next((view for view in views if of(view) != of(views[0])), None)
        if other is not None:
            values = f" ({of(first)} and {of(other)})" if isinstance(of(first), str | None) else ""
            paths = f"{first.folder.path} and {other.folder.path}"
            raise UserMistake(f"{paths} have different {what}{values}: {mend}.")
