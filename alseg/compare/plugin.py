"""What the core registers of its own: the executor on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.compare.jobs import Executor
    from alseg.hookspecs import Register


def local(jobs: Annotated[int, Between(1, 1024)] | None = None) -> Executor:
    """Processes on this machine; none: one a GPU, or one for each two cores without one."""
    from alseg.compare.local import LocalExecutor

    return LocalExecutor(jobs)


@hookimpl
def register_executors(register: Register) -> None:
    """This machine."""
    register("local", local)
