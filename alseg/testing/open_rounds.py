"""A round of a real, tiny run that is open, for those that attend it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from alseg.answering import Attendance, OpenRound
from alseg.looking import Looking
from alseg.store import RunFolder
from alseg.testing.contract import require
from alseg.testing.patience import at_once
from alseg.testing.tiny_images import TinyDataset, TinyImages
from alseg.testing.tiny_runs import tiny_registry, tiny_run
from alseg.values import PixelLabels, Question

# ground in one image and sky in the next; where rows and columns are swapped, sky and outside of the image
KNOWN, VOID = ((30, 5), (10, 60)), (0, 0)


@contextlib.contextmanager
def open_round(picks: bool, asks_class: bool) -> Iterator[OpenRound]:
    """The second round of a run on the tiny dataset; nobody is waited for. picks: its questions have no pixel."""
    with tempfile.TemporaryDirectory() as place:
        registry = tiny_registry()
        folder = RunFolder(tiny_run(Path(place) / "run", registry=registry, rounds=1))
        images = TinyDataset({"train": 4}, (64, 64)).images("train")
        questions = folder.write_questions(1, questions_of(images, picks))
        yield OpenRound(
            1,
            questions,
            folder,
            images=images,
            sizes={images.key(i): images.image(i).shape[:2] for i in range(len(images))},
            classes=TinyDataset.classes,
            labels=folder.labels() if picks else PixelLabels(),
            source="test",
            asks_class=asks_class,
            looking=Looking(registry, folder, 1, images, 0),
            rounds=2,
            attendance=Attendance(wait=False, browser=False),
        )


def questions_of(images: TinyImages, picks: bool = False) -> list[Question]:
    """Two questions of each image, the last of which is void."""
    return [
        Question(f"{images.key(i)} {k}", images.key(i), *((None, None) if picks else place))
        for i in range(len(images))
        for k, place in enumerate((KNOWN[i % 2], VOID))
    ]


def require_attends(piece: Any, picks: bool, asks_class: bool) -> None:
    """`attend` takes an open round and returns where nobody is waited for; what it did of it makes sense.

    picks: the round's questions have no pixel yet. asks_class: their classes are wanted.
    """
    with open_round(picks, asks_class) as round:
        at_once(partial(piece.attend, round), "attend(round)", "return where round.attendance.wait is False")
        left, total = len(round.unplaced()) if picks else len(round.unanswered()), len(round.placed())
        require(
            left in (0, total) or getattr(piece, "is_person", False),
            f"it did {total - left} of {total} questions and returned",
            "do all that is open, or say is_person = True where a person may do it later",
        )
