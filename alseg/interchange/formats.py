"""The formats by name: how each is written, read and recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alseg.errors import AlsegError, UserMistake
from alseg.interchange import coco, label_studio, masks, tables
from alseg.interchange.fields import read_json
from alseg.interchange.known import Known
from alseg.interchange.labelset import LabelSet, read_run
from alseg.interchange.pixelpick import read_pixelpick
from alseg.names import nearest
from alseg.progress import Progress, Quiet
from alseg.store import SETTINGS
from alseg.values import Classes


@dataclass(frozen=True)
class Source:
    """A file or folder to read, and what helps to understand it. thin: how far apart points of label images are."""

    path: Path
    known: Known | None = None
    classes: Classes | None = None
    thin: int | None = None
    progress: Progress = field(default_factory=Quiet)


@dataclass(frozen=True)
class Format:
    """suffix: of its file; None: it is a folder. write: None where it is only read. lost: what it cannot hold."""

    suffix: str | None
    write: Callable[[LabelSet], bytes | dict[str, bytes]] | None
    read: Callable[[Source], LabelSet]
    lost: str | None = None


FORMATS: Mapping[str, Format] = {
    "csv": Format(".csv", tables.write_csv, lambda source: tables.read_csv(source.path)),
    "coco": Format(".json", coco.write_coco, lambda source: coco.read_coco(source.path)),
    "label-studio": Format(
        ".json", label_studio.write_label_studio, lambda source: label_studio.read_label_studio(source.path)
    ),
    "napari": Format(None, tables.write_napari, lambda source: tables.read_napari(source.path)),
    "masks": Format(
        None,
        masks.write_masks,
        lambda source: masks.read_masks(source.path, source.classes, source.thin, source.progress),
        masks.LOST,
    ),
    "pixelpick": Format(".pkl", None, lambda source: read_pixelpick(source.path, source.known, source.classes)),
    "run": Format(None, None, lambda source: read_run(source.path)),
}


def format_named(name: str, written: bool = False) -> Format:
    """A format; UserMistake where there is none of this name, or none that is written."""
    names = [known for known, found in FORMATS.items() if found.write is not None or not written]
    if name not in names:
        raise UserMistake(f"There is no format {name!r}{nearest(name, names)}.")
    return FORMATS[name]


def recognised(path: Path) -> str:
    """The name of the format that a file or folder is in, by its content; UserMistake where that is none."""
    if not path.exists():
        raise UserMistake(f"There is no file or folder {path}.")
    found = _of_folder(path) if path.is_dir() else _of_file(path)
    if found is None:
        raise UserMistake(f"{path} is in no format that alseg recognises: say with --format which it is.")
    return found


def _of_folder(path: Path) -> str | None:
    if (path / SETTINGS).is_file():
        return "run"
    if masks.label_images(path):
        return "masks"
    return "napari" if tables.napari_files(path) else None


def _of_file(path: Path) -> str | None:
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith((b"\x80", b"\x93NUMPY")) or path.suffix.lower() in (".pkl", ".pickle", ".npy"):
        return "pixelpick"
    if start.startswith((b"\x89PNG", b"II*\0", b"MM\0*", b"RIFF")):
        return "masks"
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        content = read_json(path)
        first = content[0] if isinstance(content, list) and content else content
        if isinstance(first, Mapping):
            if "data" in first or label_studio.is_json_min(first):
                return "label-studio"
            return "coco" if "images" in first else None
        return None
    own = path.suffix.lower() == ".csv"  # what its columns lack its reader says
    try:
        names = tables.header(path, tables.decoded(path)).names
    except AlsegError:
        if own:
            raise
        return None
    if set(tables.AXES) <= set(names):
        return "napari"
    return "csv" if own or set(tables.NEEDED) <= set(names) else None


def read_source(source: Source, name: str | None = None) -> LabelSet:
    """The labels of a file or folder, by the format's name or by content; UserMistake says what is wrong with it."""
    if not source.path.exists():
        raise UserMistake(f"There is no file or folder {source.path}.")
    if source.path.is_char_device():  # such as /dev/zero, which has no end
        raise UserMistake(f"{source.path} is a device: give a file or folder of labels.")
    name = recognised(source.path) if name is None else name
    reader = format_named(name)
    if source.thin is not None and name != "masks":
        raise UserMistake(f"--thin thins label images; {source.path} is of the format {name}.")
    try:
        found = reader.read(source)
    except (AlsegError, MemoryError):
        raise
    except Exception as error:  # a file of another program may be broken in more ways than can be named
        reason = (str(error).splitlines() or [""])[0][:80]
        raise UserMistake(f"{source.path} cannot be read as {name} ({type(error).__name__}: {reason}).") from error
    if not found.labels:
        raise UserMistake(f"{source.path} holds no label.")
    return found
