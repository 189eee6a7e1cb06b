"""How much memory there is, and how much of it a process's images may take."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# a container's limit, where control groups of version 2 or 1 say it; "max" or more than there is: none
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

AT_ONCE = "ALSEG_RUNS_AT_ONCE"  # environment variable: how many runs a comparison has on this machine


def physical_memory() -> int:
    """Bytes of memory that this machine has, or that a container may take of it."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text(encoding="utf-8")))
    return min(found)


def memory_for_images() -> int:
    """A quarter of it, which the processes of torchrun, or a comparison's, on this machine have among them."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1
    return physical_memory() // 4 // processes // int(os.environ.get(AT_ONCE, "1"))
