"""Whether what an earlier run decoded can stand for what is there now: stamps of files and of code."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STARTED = time.time()  # no plugin was loaded before, as plugins import alseg
AGE = 2.0  # seconds; the coarsest clock of a common file system
READS = ("image", "mask")


def file_stamp(*paths: Path | None) -> str | None:
    """A text that is another once one of the files is, told by name, size and times; for `Images.stamp`.

    A file need not be there. None: one has changed so lately that a further change might not show.
    """
    found: list[object] = []
    for path in paths:
        try:
            there = None if path is None else path.stat()
        except FileNotFoundError:
            there = None
        except OSError:  # which reading it will say
            return None
        if there is not None and _changed(there) > time.time() - AGE:
            return None
        found.append(there and (str(path), there.st_size, there.st_mtime_ns, _changed(there), there.st_ino))
    return repr(found)


def _changed(there: os.stat_result) -> float:
    """When a file was changed; on POSIX that is known, too, where its time was set back afterwards."""
    return there.st_ctime if os.name == "posix" else there.st_mtime


def besides(images: Any, dataset: Any, options: Mapping[str, Any]) -> str | None:
    """What decides, besides their stamps, how a dataset's images are read: code and options.

    None where stamps are not to be trusted: there are none, or they were written for another `image` or `mask`, or
    the code cannot be told.
    """
    if not _speaks_for_itself(type(images)):
        return None
    code = code_of(type(dataset), type(images))
    return code and f"{code} {sorted(options.items(), key=str)}"


def _speaks_for_itself(kind: type) -> bool:
    """Whether `stamp` was written with `image` and `mask`, or after them, and is no inherited or lent one."""
    place = {name: i for i, part in reversed([*enumerate(kind.__mro__)]) for name in vars(part)}
    return all("stamp" in place and place["stamp"] <= place.get(name, -1) for name in READS)


def code_of(*things: Any) -> str | None:
    """A text that is another once the code of classes, of what they derive from, or of functions is another.

    All files of a folder count, as they import each other. None where that cannot be told: it was typed in, or a file
    was changed after it may have been imported.
    """
    names = {kind.__module__ for thing in things for kind in getattr(thing, "__mro__", (thing,))}
    found: list[tuple[str, int, int]] = []
    for name in sorted(names):
        if name.partition(".")[0] in sys.stdlib_module_names:
            continue
        source = Path(getattr(sys.modules.get(name), "__file__", None) or "")
        if not source.is_file():
            return None
        for path in sorted({source, *source.parent.glob("*.py")}):
            there = path.stat()
            if there.st_mtime > STARTED:
                return None
            found.append((str(path), there.st_size, there.st_mtime_ns))
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]
