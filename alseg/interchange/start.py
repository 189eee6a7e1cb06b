"""Labels that a run starts from: read once, checked, and copied into its folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alseg.errors import AlsegError, UserMistake
from alseg.interchange.checking import checked, listed, matched
from alseg.interchange.fields import IMPORTED
from alseg.interchange.formats import Source, read_source
from alseg.interchange.known import Known
from alseg.interchange.tables import write_csv
from alseg.store import START
from alseg.values import START_ITEMS, PixelLabel

if TYPE_CHECKING:
    from alseg.engine.images import DecodedImages
    from alseg.protocols import Dataset


@dataclass(frozen=True)
class Start:
    """content: of the run's start.csv. facts: for its run.toml. notes: a sentence on what was left out."""

    content: bytes
    facts: Mapping[str, Any]
    notes: tuple[str, ...]


def start_of(path: Path | None, dataset: Dataset, pool: DecodedImages, say: Callable[[str], None]) -> Start | None:
    """The labels that a run on these images is to start from, where it is; what was left out is said."""
    if path is None:
        return None
    # the other splits, too: an image of theirs is not taken for one that is called alike
    others = {split: dataset.images(split) for split in dataset.splits if split != "train"}
    start = read_start(path, Known(dataset.classes, {"train": pool, **others}, pool.sizes, prefers_train=True))
    for note in start.notes:
        say(note)
    return start


def read_start(path: Path, known: Known) -> Start:
    """The labels of any file or folder that can be imported, for a run on these images.

    UserMistake where an image is none of the training images, a pixel is outside, a class unknown, or none has a class.
    """
    found = matched(read_source(Source(path, known, known.classes)), known, False, "the training images")
    if held_out := sorted({label.image for label in found.labels} - set(known.train_keys())):
        are = "is no training image" if len(held_out) == 1 else "are no training images"
        raise UserMistake(f"{listed(held_out)} {are}: a run starts from labels of these alone.")
    found = checked(found, known.classes, known.size)
    if all(label.name is None or label.audit for label in found.labels):
        raise UserMistake(f"{path} holds no label to train on: there is nothing to start from.")
    content = write_csv(found)
    facts = {
        "path": str(path),
        "sha256": digest(path),
        "labels": len(found.labels),
        "images": len({label.image for label in found.labels}),
        "copy_sha256": hashlib.sha256(content).hexdigest(),
    }
    return Start(content, facts, found.notes)


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of its files' names and digests in order, hidden ones left out."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        lines = (f"{digest(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def numbered(labels: Iterable[PixelLabel]) -> Iterator[PixelLabel]:
    """As a run's own: of round 0, each item with a name that no question has."""
    for number, label in enumerate(labels):
        yield label._replace(item=f"{START_ITEMS}{number:07}", round=0, source=label.source or IMPORTED)


def check_start(folder: Path, record: Any) -> None:
    """AlsegError where a run's start.csv is not what it was written as."""
    facts = record.get("start") if isinstance(record, Mapping) else None
    if isinstance(facts, Mapping) and "copy_sha256" in facts:
        path = folder / START
        if not path.is_file() or digest(path) != facts["copy_sha256"]:
            raise AlsegError(f"{path} is not what the run began with: put it back from a copy.")
