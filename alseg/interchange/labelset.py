"""Labels on their way in or out, and those of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alseg.config import stored_config
from alseg.errors import AlsegError, UserMistake
from alseg.interchange.fields import shown
from alseg.journal import fold, places
from alseg.opened import open_dataset
from alseg.plugins import Registry
from alseg.settings import TrustSettings
from alseg.store import SETTINGS, START, RunFolder
from alseg.trust import plan_of
from alseg.values import Classes, PixelLabel, PixelLabels, Question

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class LabelSet:
    """Labelled pixels, and what a format may need or know besides.

    sizes: (height, width) by image, where known. files: an image's file, relative to the data, where known.
    notes: a sentence on each thing that was not taken as it was found.
    """

    labels: tuple[PixelLabel, ...]
    sizes: Mapping[str, Size] = field(default_factory=dict)
    classes: Classes | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def by_image(self) -> dict[str, list[PixelLabel]]:
        """The labels of each image that has any, images in the order of `sizes`, then of the labels."""
        found: dict[str, list[PixelLabel]] = {image: [] for image in self.sizes}
        for label in self.labels:
            found.setdefault(label.image, []).append(label)
        return {image: labels for image, labels in found.items() if labels}

    def file(self, image: str) -> str:
        """What other programs find an image by."""
        return self.files.get(image, image)


def read_run(path: Path, registry: Registry | None = None) -> LabelSet:
    """A run's labels, the answers of a round that is still open included; with a registry also its images' files."""
    folder = RunFolder(path)
    settings = folder.settings()
    classes = _classes(path, settings.get("record"))
    sizes = folder.sizes()
    labels = [*folder.labels()]
    folder.check_labels(len(folder.rounds()), labels)
    labels = labels or [*start_labels(folder)]
    kept = {label.item for label in labels}
    answers, lacking = _open_answers(folder, settings)
    labels += [label for label in answers if label.item not in kept]
    for label in labels:
        _check(path, label, sizes, classes)
    files, notes = _files(registry, settings) if registry is not None else ({}, ())
    if lacking:
        notes += (f"{path} lacks other people's votes on {lacking} questions of its open round: they are left out.",)
    return LabelSet(tuple(labels), sizes, classes, files, notes)


def start_labels(folder: RunFolder) -> PixelLabels:
    """What a run started from, as labels of its round 0; none where it started from nothing."""
    from alseg.interchange.start import numbered
    from alseg.interchange.tables import read_csv

    path = folder.path / START
    return PixelLabels(tuple(numbered(read_csv(path).labels)) if path.exists() else ())


def _open_answers(folder: RunFolder, settings: Mapping[str, Any]) -> tuple[list[PixelLabel], int]:
    """The labels of the open round, and of how many questions some votes are in, but not all."""
    number = len(folder.rounds())
    questions = folder.questions(number) or []
    items = {question.item for question in questions}
    events = [event for event in folder.journal.events() if event["item"] in items]
    people = _people(folder.path, settings, questions, number)
    answers, picked = fold(events, people), places(events)
    oracle = settings.get("oracle")
    source = str(oracle.get("name", "")) if isinstance(oracle, Mapping) else ""
    found = []
    for question in questions:
        answer = answers.get(question.item)
        y, x = picked.get(question.item, (question.y, question.x))
        if answer is not None and y is not None and x is not None:
            facts = (question.item, question.image, y, x, answer.name, number, source, answer.who, answer.seconds)
            found.append(PixelLabel(*facts, question.audit))
    return found, len(fold(events).keys() - answers.keys())


def _people(path: Path, settings: Mapping[str, Any], questions: Sequence[Question], round: int) -> Mapping[str, int]:
    """Of how many people a round's questions are asked, where that is more than one."""
    try:
        return plan_of(
            questions, TrustSettings(**settings.get("trust", {})), int(settings.get("seed", 0)), round
        ).people
    except (TypeError, ValueError) as error:
        raise AlsegError(
            f"{path / SETTINGS} does not say which questions are asked of several: it is damaged."
        ) from error


def _classes(path: Path, record: Any) -> Classes:
    try:
        names, void = tuple(str(name) for name in record["classes"]), int(record["void_value"])
        colours = [tuple(bytes.fromhex(str(colour).removeprefix("#"))) for colour in record["colours"]]
    except (KeyError, TypeError, ValueError) as error:
        raise AlsegError(
            f"{path / SETTINGS} does not say its classes: it is damaged, or of another version."
        ) from error
    if len(colours) != len(names) or any(len(colour) != 3 for colour in colours):
        raise AlsegError(f"{path / SETTINGS} has not a colour a class: it is damaged.")
    return Classes(names, void, tuple((c[0], c[1], c[2]) for c in colours))


def _check(path: Path, label: PixelLabel, sizes: Mapping[str, Size], classes: Classes) -> None:
    size = sizes.get(label.image)
    if size is None:
        raise AlsegError(f"The run {path} has a label of {shown(label.image)}, which is none of its images.")
    try:
        inside = 0 <= label.y < size[0] and 0 <= label.x < size[1]
    except TypeError:
        inside = False
    if not inside:
        raise AlsegError(
            f"The run {path} has a label at (y {label.y}, x {label.x}), outside the image {shown(label.image)}."
        )
    if label.name is not None and label.name not in classes.index:
        raise AlsegError(f"The run {path} has a label {shown(label.name)}, which is none of its classes.")


def _files(registry: Registry, settings: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The training images' files, relative to the dataset's folder; none of a dataset that has no files."""
    try:
        registry = registry.recalling(settings.get("record"))
        choice = stored_config(registry, settings, ("dataset",)).dataset
        images = open_dataset(registry.find("dataset", choice.name), choice.options).images("train")
        locate = getattr(images, "file", None)
        if locate is None:
            return {}, ()
        found = {images.key(i): Path(locate(i)) for i in range(len(images))}
    except UserMistake:
        return {}, ("The dataset cannot be opened here: images are called by their keys, not by their files.",)
    data = choice.options.get("data")
    return apart({k: relative(path, None if data is None else Path(str(data))) for k, path in found.items()}), ()


def relative(path: Path, root: Path | None) -> str:
    """A file's path in the folder `root`, by the links that lie there, not by where they lead; else its name alone."""
    if root is not None:
        for inside in (path.absolute(), path.resolve()):
            for folder in (root.absolute(), root.resolve()):
                if inside.is_relative_to(folder):
                    return inside.relative_to(folder).as_posix()
    return path.name


def apart(names: Mapping[str, str]) -> dict[str, str]:
    """Images' names by their keys; those that would share one are called by their keys."""
    names = dict(names)
    while True:
        times = Counter(names.values())
        shared = [key for key, name in names.items() if times[name] > 1 and name != key]
        if not shared:
            return names
        names |= {key: key for key in shared}
