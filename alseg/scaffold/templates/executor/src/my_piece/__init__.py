"""The executor `my-piece`: alseg compare --executor my-piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alseg import AlsegError, hookimpl

if TYPE_CHECKING:
    from alseg.compare.jobs import Executor, Job, Watch

ALSEG_API_VERSION = 1


def my_piece() -> Executor:
    """One run after the other, in this process."""

    # The parameters above would be options: -o executor.NAME=VALUE. What is heavy is imported in here.
    def execute(jobs: Sequence[Job], logs: Path, watch: Watch) -> None:
        """Carry out all jobs, each after the one it names; one whose `after` failed is not begun."""
        from alseg.compare.jobs import carry_out
        from alseg.progress import Quiet

        failed: dict[str, str] = {}
        for job in jobs:  # they come in an order in which each is after the one it names
            if job.after in failed:
                failed[job.name] = f"{job.after} failed"
            else:
                watch.started(job)
                try:
                    carry_out(job, Quiet())
                except AlsegError as error:
                    failed[job.name] = str(error)
                    (logs / f"{job.name}.log").write_text(f"{error}\n")
            watch.finished(job, failed.get(job.name))

    return execute


@hookimpl
def register_executors(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
