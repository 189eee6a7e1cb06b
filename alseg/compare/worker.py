"""A process that does jobs: `python -m alseg.compare.worker`, one JSON line a job on stdin, one a result on stdout.

A line in is {"job": ..., "log": PATH}: the fields of a `Job` (`dataclasses.asdict(job)`), and where what it prints
goes. A line out is {"error": null or a sentence}. Jobs are done one after another; SIGTERM interrupts one, and its run
goes on from its last phase another time. The process ends when stdin does, which is when whoever started it has died.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from alseg.errors import AlsegError, disk_sentence

if TYPE_CHECKING:
    from alseg.compare.jobs import Job

__all__ = ["error_of", "printing_to"]


def main() -> int:
    """Do jobs until stdin ends."""
    orders, results = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # what a piece or a child of its reads is no order
    os.dup2(2, 1)  # what is printed beside is no result
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which tells this process
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders, lines), daemon=True).start()
    from alseg.compare.jobs import Job

    try:
        while True:
            order = json.loads(lines.get())
            with printing_to(order["log"]):
                error = error_of(Job(**order["job"]))
            results.write(json.dumps({"error": error}) + "\n")
            results.flush()
    except KeyboardInterrupt:
        return 130


def error_of(job: Job) -> str | None:
    """Do a job in this process: None, or what went wrong in a sentence; KeyboardInterrupt where it was interrupted."""
    from alseg.cli.display import PlainProgress
    from alseg.compare.jobs import carry_out

    try:
        carry_out(job, PlainProgress())
    except AlsegError as error:
        if error.__cause__ is not None:  # of a piece's own code: the log shows where
            traceback.print_exception(error.__cause__)
        print(error, file=sys.stderr, flush=True)
        return str(error)
    except OSError as error:
        traceback.print_exc()
        return disk_sentence(error)
    except Exception as error:
        traceback.print_exc()
        return " ".join(f"{type(error).__name__}: {error}".split())
    finally:
        _free_memory()
    return None


def _free_memory() -> None:
    """Others on the same device may want it."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def printing_to(path: Path | str) -> Iterator[None]:
    """What this process and its libraries print goes to the end of a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = {stream: os.dup(stream) for stream in (1, 2)}
    try:
        for stream in before:
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, kept in before.items():
            os.dup2(kept, stream)
            os.close(kept)
        os.close(file)


def _read(orders: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in orders:
        lines.put(line)
    os.kill(os.getpid(), signal.SIGKILL)  # what is on the disk is whole at any time


if __name__ == "__main__":
    sys.exit(main())
