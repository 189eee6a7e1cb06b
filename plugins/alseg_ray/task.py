"""What a node of the cluster does: one job at a time, and a look at the comparison's folder.

Nothing heavy is imported before a job is, for only then has Ray set how many threads it may have.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alseg.errors import UserMistake

if TYPE_CHECKING:
    from alseg.compare.jobs import Job

PATIENCE = 120.0  # seconds to wait for a run that somebody writes; a file server frees a lost node's locks in 90
LOOK_EVERY = 0.5  # seconds


def blind(mark: str) -> str | None:
    """The name of this node where it does not see a file of the comparison's."""
    return None if Path(mark).exists() else socket.gethostname()


def unseen(node: str, mark: str) -> str:
    """What is wrong with a node that does not see the comparison, in a sentence."""
    return f"The node {node} does not see {Path(mark).parent}: give an --out that is on all nodes, at the same path."


def do(job: Job, place: str, mark: str, begun: Any, first: str | None = None) -> str | None:
    """Bring a job's run to its end, from whatever is there of it: None, or what went wrong in a sentence.

    place: the folder from which its words may name files. mark: a file among the logs. begun: a queue for the job's
    name. first: what came of the job that this one is after.
    """
    if first is not None:
        return first
    if (node := blind(mark)) is not None:
        return unseen(node, mark)
    from alseg.compare.jobs import log_of
    from alseg.compare.worker import error_of, printing_to

    with contextlib.suppress(OSError):
        os.chdir(place)
    begun.put(job.name)
    with printing_to(log_of(Path(mark).parent, job)):
        print(f"On {socket.gethostname()}, process {os.getpid()}", flush=True)
        try:
            wait_until_free(Path(job.folder))
        except UserMistake as mistake:
            print(mistake, flush=True)
            return str(mistake)
        return error_of(job)


def wait_until_free(folder: Path, patience: float = PATIENCE) -> None:
    """Return when nobody writes a run: a process that was lost may hold it a moment longer.

    Raises UserMistake, with the writer's name, when that takes too long.
    """
    from alseg.store import SETTINGS, RunFolder

    latest = time.monotonic() + patience
    while (folder / SETTINGS).exists():
        try:
            with RunFolder(folder).lock():
                return
        except UserMistake:
            if time.monotonic() > latest:
                raise
            time.sleep(LOOK_EVERY)
