"""The calls behind `alseg export --format` and `alseg import`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alseg.errors import UserMistake
from alseg.interchange.checking import checked, matched
from alseg.interchange.formats import Format, Source, format_named, read_source
from alseg.interchange.known import Known
from alseg.interchange.labelset import LabelSet, read_run
from alseg.interchange.tables import write_csv
from alseg.paths import expanded
from alseg.plugins import Registry, load_plugins
from alseg.progress import Progress, Quiet
from alseg.protocols import Dataset
from alseg.values import Classes
from alseg.writing import appearing, write_whole


@dataclass(frozen=True)
class Transfer:
    """What was written, how many labels of how many images, and a sentence on each thing that was lost."""

    path: Path
    labels: int
    images: int
    notes: tuple[str, ...]


def export_labels(
    run: Path | str, format: str = "csv", out: Path | str | None = None, *, registry: Registry | None = None
) -> Transfer:
    """Write a run's labels as csv, coco, label-studio, napari or masks; answers of an open round are among
    them, but for questions that still lack other people's votes.

    out: a file, or a folder where the format is many files; by default beside the run's folder. Raises
    UserMistake where that exists, or there is no such format.
    """
    chosen = format_named(format, written=True)
    run = expanded(run)
    # a table calls images by their keys: it needs no files of theirs
    found = read_run(run, None if format == "csv" else registry or load_plugins())
    path = _free(expanded(out) if out is not None else _beside(run, format, chosen), chosen)
    if not found.labels:
        raise UserMistake(" ".join((f"The run {run} has no labels yet.", *found.notes)))
    assert chosen.write is not None
    _write(path, chosen.write(found))
    notes = found.notes
    if chosen.lost:
        untrained = sum(label.name is None or label.audit for label in found.labels)
        notes += (f"The format {format} does not hold {chosen.lost}" + (f": {untrained} here." if untrained else "."),)
    return _transfer(path, found, notes)


def import_labels(
    source: Path | str,
    out: Path | str,
    format: str | None = None,
    *,
    dataset: Dataset | None = None,
    classes: tuple[str, ...] = (),
    thin: int | None = None,
    ignore_missing: bool = False,
    progress: Progress | None = None,
) -> Transfer:
    """Read labels in any of the formats and write them as alseg's csv.

    format: by default as the content says. dataset: its images' names, sizes and classes are what the labels are
    held against. classes: what values mean where there is no dataset. thin: pixels between points of label images.
    ignore_missing: leave out images that the dataset does not have. Raises UserMistake where `out` exists, and for
    the first label that is wrong.
    """
    path = _free(expanded(out), format_named("csv"))
    known = None if dataset is None else Known.of(dataset)
    named = Classes(classes, 255 if len(classes) <= 255 else 65535) if classes else None
    if named is not None and len(named.index) < len(classes):
        raise UserMistake("--classes names a class twice.")
    own = named if known is None else known.classes
    if thin is not None and thin < 1:
        raise UserMistake(f"--thin takes pixels from 1, not {thin}.")
    found = read_source(Source(expanded(source), known, own, thin, progress or Quiet()), format)
    if known is not None:
        found = matched(found, known, ignore_missing)
    found = checked(found, own or found.classes, None if known is None else known.size)
    write_whole(path, write_csv(found))
    return _transfer(path, found, found.notes)


def _transfer(path: Path, found: LabelSet, notes: tuple[str, ...]) -> Transfer:
    return Transfer(path, len(found.labels), len({label.image for label in found.labels}), notes)


def _beside(run: Path, name: str, chosen: Format) -> Path:
    run = run.resolve()
    kind = "" if name == "csv" else f"-{name}"
    return run.parent / f"{run.name}-labels{kind}{chosen.suffix or ''}"


def _free(path: Path, chosen: Format) -> Path:
    """UserMistake where something is in the way, or there is no folder for it."""
    if path.exists() and (chosen.suffix is not None or not path.is_dir() or any(path.iterdir())):
        raise UserMistake(f"{path} exists: give another --out.")
    if not path.parent.is_dir():
        raise UserMistake(f"There is no folder {path.parent} for {path.name}.")
    return path


def _write(path: Path, content: bytes | Mapping[str, bytes]) -> None:
    """A file, or a folder of files, which appears with all of them."""
    if isinstance(content, bytes):
        write_whole(path, content)
        return
    with appearing(path) as fresh:
        for name, inside in content.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(inside)
