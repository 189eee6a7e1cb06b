"""Commands as they are to be typed, single-file plugins included, for whoever is told how to go on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alseg.paths import expanded

FOLDERS = "ALSEG_PLUGINS"  # environment variable: folders of single files, which are loaded without being given


def plugin_folders() -> list[Path]:
    """The absolute paths of the folders that ALSEG_PLUGINS names."""
    names = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [expanded(name).absolute() for name in names if name]


def command(files: Iterable[Path | str], *words: Path | str) -> str:
    """`alseg --plugin FILE WORD ...` for a shell that is where this process is; files in ALSEG_PLUGINS are left out."""
    folders, given = plugin_folders(), [Path(file) for file in files]
    plugins = [word for file in given if file.parent not in folders for word in ("--plugin", _near(file))]
    return f"`{shlex.join(['alseg', *plugins, *map(str, words)])}`"


def files_in(record: Any) -> list[str]:
    """The plugin files that a run was started with, from the record in its settings."""
    files = record.get("plugin_files") if isinstance(record, Mapping) else None
    return [str(file) for file in files] if isinstance(files, list | tuple) else []


def plugin_hint(record: Any, run: Path | None = None) -> str:
    """A sentence on the plugin files that a run was started with; run: its folder, where it is to be gone on with."""
    files = files_in(record)
    if not files:
        return ""
    given = shlex.join([word for file in files for word in ("--plugin", _near(Path(file)))])
    if run is None:
        near = [_near(Path(file)) for file in files]
        return f" It was started with {given}: give that after `alseg`, in Python registry=alseg.load_plugins({near})."
    return f" It was started with {given}: {command(files, 'resume', run)} goes on."


def _near(file: Path) -> str:
    """A file's path from where this process is, if it lies there or below."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)
