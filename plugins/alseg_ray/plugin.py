"""What the package registers: the executor on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.compare.jobs import Executor
    from alseg.hookspecs import Register


def ray(
    address: str | None = None,
    cpus: Annotated[float, Between(0.01, 1024)] | None = None,
    gpus: Annotated[float, Between(0, 64)] | None = None,
    memory: Annotated[float, Between(0.01, 2**20)] | None = None,
) -> Executor:
    """A Ray cluster (extra alseg[ray]); its address, none: the one that is there, or this machine.

    cpus, gpus, memory (GiB): what a run is given; half a GPU is shared by two. None: two cores, and one GPU where
    the cluster has any.
    """
    from alseg_ray.executor import RayExecutor

    return RayExecutor(address, cpus=cpus, gpus=gpus, memory=memory)


@hookimpl
def register_executors(register: Register) -> None:
    """A Ray cluster."""
    register("ray", ray)
