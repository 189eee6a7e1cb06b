"""Plugins that are single files: those given, and those in folders that the environment names."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alseg.errors import UserMistake
from alseg.hints import FOLDERS, plugin_folders
from alseg.lacking import PACKAGE_FILE
from alseg.paths import expanded
from alseg.pieces import Plugin


def given_files(files: Path | str | Iterable[Path | str]) -> list[Path]:
    """The absolute paths of files that somebody gave, one or several; UserMistake where one is no file."""
    given = [expanded(file).absolute() for file in ([files] if isinstance(files, Path | str) else files)]
    for path in given:
        if (path / PACKAGE_FILE).is_file():
            raise UserMistake(f"{path} is a folder: give the package in it by its file, {path / PACKAGE_FILE}.")
        if path.is_dir():
            raise UserMistake(
                f"{path} is a folder: give a file of it, or have all of them loaded each time by {FOLDERS}={path}."
            )
        if not path.is_file():
            raise UserMistake(f"There is no plugin file {path}.")
    return given


def files_in_folders(plugins: list[Plugin]) -> list[Path]:
    """The single files in ALSEG_PLUGINS' folders; a folder that cannot be read is added to the plugins as failed."""
    files: list[Path] = []
    for folder in plugin_folders():
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix == ".py" and path.is_file())
        except OSError as error:
            why = f"the folder {folder} cannot be read: {error.strerror}"
            plugins.append(Plugin(folder.name, FOLDERS, "-", "failed", why))
            continue
        files += [path for path in found if not re.match(r"[_.]|test_|conftest\.py$", path.name)]
    return files


def recorded_files(files: Sequence[Path]) -> dict[str, Any]:
    """What a run's record says of the files that it is started with: where they lie, and their code's digests."""
    if not files:
        return {}
    return {"plugin_files": [str(file) for file in files], "plugin_sha256": [_digest(file) for file in files]}


def changed_file(record: Any, files: Iterable[Path]) -> str | None:
    """The first of these files, or of packages, that a run by its record was started with when its code was other."""
    known = dict(zip(record.get("plugin_files", ()), record.get("plugin_sha256", ()), strict=False))
    for file in files:
        if str(file) in known and known[str(file)] != _digest(file):
            return file.parent.name if file.name == PACKAGE_FILE else file.name
    return None


def _digest(file: Path) -> str:
    """Of a file's code; of a package's file that of all its modules."""
    if file.name != PACKAGE_FILE:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    each = [(name, (file.parent / name).read_bytes()) for name in sorted(_modules(file.parent))]
    return hashlib.sha256(repr(each).encode()).hexdigest()


def _modules(package: Path) -> Iterator[str]:
    """The files of a package's code by their places in it, but for those of its tests and in hidden folders."""
    for folder, inner, files in os.walk(package):
        inner[:] = [name for name in inner if name != "tests" and not name.startswith(".")]
        for path in (Path(folder, name) for name in files if name.endswith(".py")):
            if path.is_file():  # an editor's lock is a dead link
                yield path.relative_to(package).as_posix()
