"""Files and folders that are whole or not there, whatever ends the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".*.tmp"  # what a file is called until `write_whole` gives it its name


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file at once: a temporary file beside it, fsync, rename."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Let an error name what was to be written, not a temporary file, or none."""
    error.filename = str(path)
    del error.filename2  # which would be shown as None


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A hidden folder to be filled, which then appears as `path` at once; nothing stays of it where that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        os.chmod(fresh, 0o755)
        yield fresh
        os.rename(fresh, path)
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        if isinstance(error, OSError) and error.errno and str(error.filename or fresh).startswith(str(fresh)):
            _name(error, path)
        raise
    _sync_folder(path.parent)
