"""The forward and backward pass of a training step: plainly, or recorded on a GPU once and replayed.

A step of a small network launches a thousand kernels that each take less time than their launch; a CUDA graph
launches them all at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.batches import PADDING, Batch
from alseg.errors import AlsegError

Gradients = Callable[[Batch], Tensor]  # leaves a batch's gradients in the parameters; its loss, detached

WARM_UP = 3  # plain steps before one is recorded, in which libraries choose their kernels
SIZES = 2  # of batches that are recorded: an epoch's last is smaller, where images are left over


class Recorder(Protocol):
    """Runs work and can do it again from a recording."""

    def warm_up(self, work: Callable[[], Tensor], last: bool) -> Tensor:
        """Do it plainly, in the manner that a recording needs before; RuntimeError at the last where none can be."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """What gives its result in place, and what does it anew; RuntimeError where it cannot be recorded."""


class CUDAGraph:
    """A `Recorder` by torch.cuda.graph."""

    def __init__(self) -> None:
        self._side = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()  # recordings share memory: they are never replayed at once

    def warm_up(self, work: Callable[[], Tensor], last: bool) -> Tensor:
        """On another stream, as torch's notes on CUDA graphs ask for; the last may not wait for the GPU."""
        now, mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        self._side.wait_stream(now)
        try:
            with torch.cuda.stream(self._side):
                torch.cuda.set_sync_debug_mode("error" if last else mode)
                result = work()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            now.wait_stream(self._side)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        """Nothing is computed yet."""
        graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        generator = torch.cuda.default_generators[now.device_index]
        before = generator.clone_state()
        try:
            with torch.cuda.graph(graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"):
                result = work()
        except BaseException:
            # torch leaves these as they are in a recording, in which no plain step can be taken
            torch.cuda.set_stream(now)
            generator.graphsafe_set_state(before)
            if not _has_ended(graph):
                self._end_allocating(now.device_index)
            self._pool = torch.cuda.graph_pool_handle()  # what was released may not be used again
            raise
        return result, graph.replay

    def _end_allocating(self, device: int) -> None:
        """Nor does torch's allocator, which would never free again what two streams have used."""
        if hasattr(torch.cuda.CUDAGraph, "capture_end_pre"):  # torch 2.14 and later do all of this
            return
        names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # the latter before torch 2.8
        end = next((getattr(torch._C, name) for name in names if hasattr(torch._C, name)), None)
        if end is None:  # a torch that calls it otherwise: what is lost is memory
            return
        with contextlib.suppress(RuntimeError):  # torch 2.13 has ended it
            end(device, self._pool)
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_releasePool(device, self._pool)


def _has_ended(graph: torch.cuda.CUDAGraph) -> bool:
    """Whether a recording has, so that what failed is something else, and torch releases its memory."""
    try:
        graph.pool()
    except RuntimeError:
        return False
    return True


@dataclass
class _Recording:
    """Of batches of one size. held: what it reads; steps: those that were taken before; plain: none can be made."""

    held: Batch
    steps: int = 0
    plain: bool = False
    replay: Callable[[], None] | None = None
    loss: Tensor = field(default_factory=lambda: torch.empty(0))
    gradients: list[Tensor | None] = field(default_factory=list)


class Recorded:
    """`Gradients` that replays a recording where a batch has one of the first `SIZES` sizes, else works plainly.

    points: how many an image gets, by padding, so that batches are of one size, but for an epoch's last. Where nothing
    can be recorded, `say` is told so once and all steps are plain. others: makes what takes the steps that are no
    recording's, if it is not `plain`, whose kernels may be worth it in recordings alone.
    """

    def __init__(
        self,
        plain: Gradients,
        parameters: Iterable[nn.Parameter],
        points: int,
        recorder: Recorder,
        say: Callable[[str], None] = lambda line: None,
        others: Callable[[], Gradients] | None = None,
    ) -> None:
        self._plain, self._recorder, self._say = plain, recorder, say
        self._others = cache(others or (lambda: plain))
        self._parameters, self._points = list(parameters), points
        self._made: dict[tuple[torch.Size | None, ...], _Recording] = {}

    def __call__(self, batch: Batch) -> Tensor:
        """The loss, until the next call."""
        batch = padded(batch, self._points)
        sizes = tuple(part if part is None else part.shape for part in batch.tensors())
        if sizes not in self._made and len(self._made) < SIZES:
            parts = (part if part is None else part.clone() for part in batch.tensors())
            self._made[sizes] = _Recording(Batch(*parts))  # type: ignore[arg-type]
        made = self._made.get(sizes)
        if made is None or made.plain:
            return self._others()(batch)
        if made.replay is None:
            return self._prepared(made, batch)
        return self._replayed(made, made.replay, batch)

    def _prepared(self, made: _Recording, batch: Batch) -> Tensor:
        """A plain step, or once there were enough the first one of a recording."""
        made.steps += 1
        try:
            if made.steps <= WARM_UP:
                return self._recorder.warm_up(lambda: self._plain(batch), made.steps == WARM_UP)
            made.loss, made.replay = self._recorder.record(lambda: self._plain(made.held))
            made.gradients = [parameter.grad for parameter in self._parameters]
        except (RuntimeError, AlsegError) as error:
            if made.steps < WARM_UP:
                raise
            self._give_up(made, error)
        if made.replay is None:  # only here, as the error holds on to the memory of the step that failed
            if batch.images.device.type == "cuda":
                torch.cuda.empty_cache()
            return self._others()(batch)
        return self._replayed(made, made.replay, batch)

    def _replayed(self, made: _Recording, replay: Callable[[], None], batch: Batch) -> Tensor:
        for held, part in zip(made.held.tensors(), batch.tensors(), strict=True):
            if held is not None and part is not None:
                held.copy_(part, non_blocking=True)
        replay()
        for parameter, gradient in zip(self._parameters, made.gradients, strict=True):
            parameter.grad = gradient  # a step of another kind has put others there
        return made.loss

    def _give_up(self, failed: _Recording, error: Exception) -> None:
        """Take plain steps for batches of this size; the error goes on where it says nothing about recordings.

        A recording that broke off takes the others along: they draw from the generator's earlier state, which torch
        may hold to be in a recording ever after.
        """
        reason = error.__cause__ if isinstance(error, AlsegError) else error  # what a piece raised names it
        if not isinstance(reason, RuntimeError):
            raise error
        first = not any(made.plain for made in self._made.values())
        for made in (failed,) if failed.steps <= WARM_UP else self._made.values():
            made.plain, made.replay, made.gradients = True, None, []  # which hold on to its memory
        if first:
            self._say(f"The training steps are not recorded as a CUDA graph: {str(reason).splitlines()[0]}")


def padded(batch: Batch, points: int) -> Batch:
    """The batch with so many points an image, the added ones of no class; as it is where it has more or none."""
    if batch.points is None or batch.points.shape[1] >= points:
        return batch
    more = points - batch.points.shape[1]
    return Batch(
        batch.images, F.pad(batch.points, (0, 0, 0, more), value=0.5), F.pad(batch.classes, (0, more), value=PADDING)
    )
