"""The executor `my-piece`: alseg compare --executor my-piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alseg import hookimpl

if TYPE_CHECKING:
    from alseg.compare.jobs import Executor, Job, Watch

ALSEG_API_VERSION = 1


def my_piece(python: str | None = None) -> Executor:
    """One run after the other, each in a process of its own; none: this Python."""

    # The parameters above are options: -o executor.python=... What is heavy is imported in here.
    def execute(jobs: Sequence[Job], logs: Path, watch: Watch) -> None:
        """Carry out all jobs, each after the one it names; one whose `after` failed is not begun."""
        logs.mkdir(parents=True, exist_ok=True)
        failed: set[str] = set()
        for job in jobs:  # they come in an order in which each is after the one it names
            error = f"{job.after} failed, with which it begins" if job.after in failed else None
            if error is None:
                watch.started(job)
                error = result_of(job, logs, watch, python)
            if error is not None:
                failed.add(job.name)
            watch.finished(job, error)

    return execute


def result_of(job: Job, logs: Path, watch: Watch, python: str | None) -> str | None:
    """None, or what went wrong in a sentence."""
    import json
    import subprocess
    import sys
    from concurrent.futures import ThreadPoolExecutor, wait
    from dataclasses import asdict

    from alseg.compare.jobs import log_of

    order = json.dumps({"job": asdict(job), "log": str(log_of(logs, job))})
    worker = [python or sys.executable, "-m", "alseg.compare.worker"]  # does a job a line, and ends with its stdin
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ThreadPoolExecutor(1) as reader, subprocess.Popen(worker, **pipes) as process:
        try:
            process.stdin.write(order + "\n")
            process.stdin.flush()
            answer = reader.submit(process.stdout.readline)
            while not wait([answer], 0.2).done:
                watch.tick()
            return json.loads(answer.result() or '{"error": "its process ended"}')["error"]
        finally:
            process.kill()  # on Ctrl-C too; what is on the disk is whole at any time


@hookimpl
def register_executors(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
