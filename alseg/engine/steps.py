"""The forward and backward pass of a training step: plainly, or recorded on a GPU once and replayed.

A step of a small network launches a thousand kernels that each take less time than their launch; a CUDA graph
launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.batches import PADDING, Batch
from alseg.errors import AlsegError

Gradients = Callable[[Batch], Tensor]  # leaves a batch's gradients in the parameters; its loss, detached

WARM_UP = 3  # plain steps before one is recorded, in which libraries choose their kernels


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
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                result = work()
        except BaseException:
            # torch leaves both as they are in a recording, in which no plain step can be taken
            torch.cuda.set_stream(now)
            generator.graphsafe_set_state(before)
            raise
        return result, graph.replay


class Recorded:
    """`Gradients` that replays a recording where a batch has the size of the first one, else works plainly.

    points: how many an image gets, by padding, so that batches are of one size. Where nothing can be recorded,
    `say` is told so once and all steps are plain.
    """

    def __init__(
        self,
        plain: Gradients,
        parameters: Iterable[nn.Parameter],
        points: int,
        recorder: Recorder,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._plain, self._recorder, self._say = plain, recorder, say
        self._parameters, self._points = list(parameters), points
        self._steps, self._fails = 0, False
        self._held: Batch | None = None  # what the recording reads
        self._replay: Callable[[], None] | None = None
        self._loss = torch.empty(0)
        self._gradients: list[Tensor | None] = []

    def __call__(self, batch: Batch) -> Tensor:
        """The loss, until the next call."""
        batch = padded(batch, self._points)
        if self._held is None:
            self._held = Batch(*(part if part is None else part.clone() for part in batch.tensors()))  # type: ignore[arg-type]
        if self._fails or _sizes(batch) != _sizes(self._held):
            return self._plain(batch)
        if self._steps < WARM_UP:
            self._steps += 1
            try:
                return self._recorder.warm_up(lambda: self._plain(batch), self._steps == WARM_UP)
            except (RuntimeError, AlsegError) as error:
                if self._steps < WARM_UP:
                    raise
                self._give_up(error)
                return self._plain(batch)
        if self._replay is None:
            self._record(self._held)
        if self._replay is None:
            return self._plain(batch)
        for held, part in zip(self._held.tensors(), batch.tensors(), strict=True):
            if held is not None and part is not None:
                held.copy_(part, non_blocking=True)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient  # a plain step in between has put others there
        return self._loss

    def _record(self, held: Batch) -> None:
        try:
            self._loss, self._replay = self._recorder.record(lambda: self._plain(held))
        except (RuntimeError, AlsegError) as error:
            self._give_up(error)
        self._gradients = [parameter.grad for parameter in self._parameters]

    def _give_up(self, error: Exception) -> None:
        """Take plain steps from now on; the error goes on where it says nothing about recordings."""
        reason = error.__cause__ if isinstance(error, AlsegError) else error  # what a piece raised names it
        if not isinstance(reason, RuntimeError):
            raise error
        self._fails = True
        self._say(f"The training steps are not recorded as a CUDA graph: {str(reason).splitlines()[0]}")


def _sizes(batch: Batch) -> list[torch.Size | None]:
    return [part if part is None else part.shape for part in batch.tensors()]


def padded(batch: Batch, points: int) -> Batch:
    """The batch with so many points an image, the added ones of no class; as it is where it has more or none."""
    if batch.points is None or batch.points.shape[1] >= points:
        return batch
    more = points - batch.points.shape[1]
    return Batch(
        batch.images, F.pad(batch.points, (0, 0, 0, more), value=0.5), F.pad(batch.classes, (0, more), value=PADDING)
    )
