"""The run directory: settings, questions, labels, rounds and models on disk."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import socket
import time
import tomllib
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import tomli_w
from filelock import FileLock, Timeout

from alseg.errors import Lasting, UserMistake
from alseg.hints import command, files_in
from alseg.journal import Journal
from alseg.paths import expanded
from alseg.values import Classes, PixelLabel, PixelLabels, Question
from alseg.writing import UNFINISHED, appearing, write_whole

if TYPE_CHECKING:
    from torch import nn

SETTINGS = "run.toml"
IMAGES = "images.jsonl"
START = "start.csv"  # the labels a run started from
QUESTIONS, ASKING, MODEL = "questions.jsonl", "asking.json", "model.safetensors"  # in the folder of a round
# what every line of rounds.jsonl has
RECORDED = (
    *("round", "labelled_pixels", "pixels_per_image", "split", "miou", "iou", "pixel_accuracy", "classes_per_image"),
    *("classes_per_image_total", "loss", "train_seconds", "acquire_seconds", "evaluate_seconds", "device"),
)


class RunFolder:
    """A run on disk. One process writes, holding `lock`; readers take no lock."""

    def __init__(self, path: Path) -> None:
        self.path = expanded(path)
        if not (self.path / SETTINGS).is_file():
            raise UserMistake(f"{path} is no run: it has no {SETTINGS}.")
        self.journal = Journal(self.path / "journal.jsonl")

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Mapping[str, Any],
        images: Iterable[Mapping[str, Any]] = (),
        start: bytes | None = None,
    ) -> RunFolder:
        """A new run, which appears with its settings, a line on each of its images and what it starts from at once."""
        refuse_occupied(path)
        path = path.resolve() if path.is_symlink() else path
        try:
            with appearing(path) as fresh:
                (fresh / "rounds").mkdir()
                write_lines(fresh / IMAGES, images)
                if start is not None:
                    write_whole(fresh / START, start)
                write_toml(fresh / SETTINGS, settings)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            refuse_occupied(path)  # by another process meanwhile
            raise UserMistake(f"Cannot create the run {path}: {error.strerror}; give another --out.") from error
        return cls(path)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for writing; the kernel lets go when the process dies."""
        lock, holder = FileLock(self.path / ".lock"), self.path / ".writer"
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            name = holder.read_text("utf-8").strip() if holder.exists() else "another process"
            raise UserMistake(f"The run {self.path} is being written by {name}: wait for it or end it.") from error
        self._sweep()
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {since}\n", "utf-8")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace run.toml."""
        write_toml(self.path / SETTINGS, settings)

    def _sweep(self, older: float = 60.0) -> None:
        """Remove temporary files that a killed process left, not what a report may be writing now."""
        for path in self.path.rglob(UNFINISHED):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older:
                    path.unlink()

    def settings(self) -> dict[str, Any]:
        """The whole run.toml, nested."""
        try:
            return tomllib.loads((self.path / SETTINGS).read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Lasting(f"{self.path / SETTINGS} is damaged: {error}.") from error

    def images(self) -> list[dict[str, Any]]:
        """A line on each image that the run began with."""
        path, keys = self.path / IMAGES, ("split", "image", "height", "width", "pixels", "mask")
        if not path.exists():
            raise Lasting(f"{self.path} has no {IMAGES}: it is damaged, or of another version of alseg.")
        return _understood(path, read_lines(path), lambda line: {key: line[key] for key in keys})

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) of the training images, by name."""
        return {line["image"]: (line["height"], line["width"]) for line in self.images() if line["split"] == "train"}

    def in_round(self, round: int, name: str = "") -> Path:
        """rounds/NN, or what is called `name` in it; it need not be there."""
        return self.path / "rounds" / f"{round:02}" / name

    def round_folder(self, round: int) -> Path:
        """rounds/NN, made when missing."""
        folder = self.in_round(round)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def questions(self, round: int) -> list[Question] | None:
        """What a round asks; None where that is not decided yet."""
        path = self.in_round(round, QUESTIONS)
        return _understood(path, read_lines(path), lambda line: Question(**line)) if path.exists() else None

    def asked(self) -> tuple[int, ...]:
        """How many pixels an image, at most, each round was to ask whose questions are there."""
        found: list[int] = []
        while (path := self.in_round(len(found), QUESTIONS)).exists():
            noted = read_lines(path.with_name(ASKING))
            if noted and "most_per_image" in noted[0]:
                found.append(int(noted[0]["most_per_image"]))
            else:
                found.append(_most_per_image(path, path.stat().st_mtime_ns))
        return tuple(found)

    def acquire_seconds(self, round: int) -> float:
        """How long it took to choose a round's questions; 0 where nothing was chosen."""
        records = read_lines(self.in_round(round, ASKING))
        return float(records[0].get("acquire_seconds", 0.0)) if records else 0.0

    def write_questions(
        self, round: int, questions: Iterable[Question], seconds: float = 0.0, most: int | None = None
    ) -> list[Question]:
        """Number a round's questions, which it took `seconds` to choose, and write them whole.

        most: how many an image were to be asked; None: what an image is asked.
        """
        noted = {} if most is None else {"most_per_image": most}
        write_lines(self.round_folder(round) / ASKING, [{"acquire_seconds": seconds, **noted}])
        numbered = [q._replace(item=f"r{round:02}-{number:07}") for number, q in enumerate(questions)]
        write_lines(self.round_folder(round) / QUESTIONS, (q._asdict() for q in numbered))
        return numbered

    def labels(self) -> PixelLabels:
        """The pixels asked in all finished rounds."""
        path = self.path / "labels.jsonl"
        made = _understood(path, read_lines(path), lambda line: PixelLabel(name=line.pop("class"), **line))
        return PixelLabels(tuple(made))

    def check_labels(self, rounds: int, labels: Iterable[PixelLabel] | None = None) -> None:
        """Lasting where labels.jsonl lacks a pixel that the first `rounds` rounds asked; labels: what is in it."""
        kept = {label.item for label in (self.labels() if labels is None else labels)}
        for round in range(rounds):
            asked = read_lines(self.in_round(round, "questions.jsonl"))
            if lost := [line for line in asked if line.get("item") not in kept]:
                path = self.path / "labels.jsonl"
                raise Lasting(f"{path} lacks {len(lost)} answers of round {round}: put it back from a copy.")

    def write_labels(self, labels: PixelLabels) -> None:
        """One label a line, the file whole."""
        order = ("item", "image", "y", "x", "class", "round", "source", "who", "seconds")
        rows = ({**label._asdict(), "class": label.name} for label in labels)
        kept = ((*order, "audit") if label.audit else order for label in labels)
        lines = ({name: row[name] for name in names} for row, names in zip(rows, kept, strict=True))
        write_lines(self.path / "labels.jsonl", lines)

    def rounds(self) -> list[dict[str, Any]]:
        """The finished rounds, each with its number."""
        path = self.path / "rounds.jsonl"
        records = read_lines(path)
        for number, record in enumerate(records):
            if record.get("round") != number:
                raise Lasting(f"Line {number + 1} of {path} is not round {number}.")
            lacks = next((key for key in RECORDED if key not in record), None)
            if lacks is not None:
                raise Lasting(f"Line {number + 1} of {path} lacks {lacks}: it is damaged, or of another version.")
        return records

    def write_round(self, record: Mapping[str, Any]) -> None:
        """Add a finished round; earlier lines stay byte for byte."""
        path = self.path / "rounds.jsonl"
        before = path.read_bytes() if path.exists() else b""
        write_whole(path, before + _line(record))

    def write_confusion(self, round: int, matrix: np.ndarray, classes: Classes) -> None:
        """rounds/NN/confusion.csv: rows truth, columns prediction."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["truth", *classes.names])
        writer.writerows([name, *row] for name, row in zip(classes.names, matrix.tolist(), strict=True))
        write_whole(self.round_folder(round) / "confusion.csv", text.getvalue().encode())

    def has_model(self, round: int) -> bool:
        """Whether a round's training is complete."""
        return self.in_round(round, MODEL).exists()

    def remove_models(self, before: int) -> None:
        """Let the models of earlier rounds go."""
        for round in range(before):
            self.in_round(round, MODEL).unlink(missing_ok=True)

    def model_digest(self, round: int) -> str:
        """SHA-256 of a round's model file."""
        with open(self.in_round(round, MODEL), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def write_model(self, round: int, model: nn.Module, facts: Mapping[str, Any]) -> None:
        """rounds/NN/model.safetensors, whole, with facts about its training as metadata."""
        from alseg.engine.weights import stored

        write_whole(self.round_folder(round) / MODEL, stored(model, facts))

    def read_model(self, round: int, model: nn.Module, spare: Callable[[str], bool]) -> dict[str, Any]:
        """Load a round's weights into a model of the same shape; the facts about its training.

        spare: whether weights of a name are passed over.
        """
        from safetensors import safe_open

        path = self.in_round(round, MODEL)
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if not spare(name)]  # noqa: SIM118
                model.load_state_dict({name: file.get_tensor(name) for name in names})
                facts: dict[str, Any] = json.loads((file.metadata() or {})["training"])
        except Exception as error:
            raise Lasting(f"The model {path} cannot be read: {str(error).splitlines()[0]}.") from error
        return facts


@lru_cache(maxsize=4096)
def _most_per_image(path: Path, changed: int) -> int:
    """The most that an image is asked by a file of questions, without those that only measure."""
    asked = Counter(line.get("image") for line in read_lines(path) if not line.get("audit"))
    return max(asked.values(), default=0)


def new_name() -> str:
    """A run's name, which no other has."""
    return uuid.uuid4().hex


def name_of(record: Any) -> str:
    """A run's name, which no other has, from the record in its settings; empty where it has none."""
    return str(record.get("run", "")) if isinstance(record, Mapping) else ""


def refuse_occupied(path: Path) -> None:
    """A run or other files at `path` are not written over."""
    if (path / SETTINGS).exists():
        goes_on = command(files_in(RunFolder(path).settings().get("record")), "resume", path)
        raise UserMistake(f"{path} is a run already: go on with {goes_on}, or give another --out.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserMistake(f"{path} holds other files: give another --out.")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file, none where there is no file."""
    content = path.read_bytes() if path.exists() else b""
    if not content:
        return []
    lines = []
    # only b"\n" ends a line: names may hold U+2028 and the like
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), 1):
        try:
            value = json.loads(line.decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:  # the latter where brackets are nested by the thousand
            raise Lasting(f"Line {number} of {path} is no JSON.") from error
        if not isinstance(value, dict):
            raise Lasting(f"Line {number} of {path} is no JSON object.")
        lines.append(value)
    return lines


def write_toml(path: Path, table: Mapping[str, Any]) -> None:
    """A TOML file, whole."""
    write_whole(path, tomli_w.dumps(dict(table)).encode())


T = TypeVar("T")


def _understood(path: Path, lines: list[dict[str, Any]], make: Callable[[dict[str, Any]], T]) -> list[T]:
    made = []
    for number, line in enumerate(lines, 1):
        try:
            made.append(make(line))
        except (KeyError, TypeError) as error:
            raise Lasting(f"Line {number} of {path} cannot be understood: {error}.") from error
    return made


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """JSON lines, the file whole."""
    write_whole(path, b"".join(map(_line, lines)))


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")
