"""What a training step does on streams beside its own, as most kernels of a small network leave much of a GPU idle.

- Gradients of weights, for which nothing in a backward pass waits.
- Branches of a network, with their backward passes.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 4  # how many gradients are handed to the stream at once, each time with a wait for what came before
LARGE = 2**22  # numbers of a map whose weight's gradient takes so long that it begins at once

Wanted = dict[Tensor, Tensor]  # leaves and their gradients


class Aside:
    """A stream on which the gradients of weights are computed, from a step's backward pass until `join`; `branches`.

    On a CPU, which has no streams, they are computed where they are handed over.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._branches: list[torch.cuda.Stream] = []  # made when first used
        self._taken = 0  # of these, by calls that are under way
        self._due: list[Callable[[], Wanted]] = []
        self._due_on: set[torch.cuda.Stream] = set()  # streams that have made what these read
        self._held: list[Callable[[], Wanted]] = []  # with what they read, whose memory is the other stream's
        self._found: Wanted = {}
        self.takes = True  # whether a backward pass is the step's own

    @contextlib.contextmanager
    def forward_pass(self) -> Iterator[None]:
        """Inside, a backward pass is one of the model's, such as by torch.autograd.grad: nothing is handed over."""
        self.takes = False
        try:
            yield
        finally:
            self.takes = True

    def later(self, work: Callable[[], Wanted], size: int) -> None:
        """Compute gradients beside what comes after; size: how many numbers the map's gradient has."""
        self._due.append(work)
        if self._stream is not None:  # a branch's backward pass runs on the branch's stream
            self._due_on.add(torch.cuda.current_stream(self._device))
        if size >= LARGE or len(self._due) >= AT_ONCE:
            self._start()

    def join(self) -> None:
        """Let the current stream wait for all that was begun, and add it to the gradients that the leaves have."""
        self._start()
        if self._held and self._stream is not None:  # a recording may not wait for what it has not begun
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        for leaf, gradient in self._found.items():
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        self.forget()

    def forget(self) -> None:
        """Keep nothing, such as what a backward pass that failed has left."""
        self._due, self._held, self._found = [], [], {}
        self._due_on.clear()

    @contextlib.contextmanager
    def branches(self, count: int) -> Iterator[list[torch.cuda.Stream]]:
        """So many streams that nothing else uses meanwhile; none on a CPU."""
        if self._device.type != "cuda":
            yield []
            return
        first, self._taken = self._taken, self._taken + count
        while len(self._branches) < self._taken:
            self._branches.append(torch.cuda.Stream(self._device))
        try:
            yield self._branches[first : first + count]
        finally:
            self._taken = first

    def _start(self) -> None:
        if self._stream is not None:
            for stream in self._due_on:
                self._stream.wait_stream(stream)
        with torch.cuda.stream(self._stream), torch.no_grad():  # a stream that is None changes nothing
            for work in self._due:
                for leaf, gradient in work().items():
                    self._found[leaf] = self._found[leaf] + gradient if leaf in self._found else gradient
        self._held += self._due
        self._due = []
        self._due_on.clear()


# of each device, as there may be a training on each, the innermost last; not a context's, as autograd's threads, where
# checkpoints are computed anew, have one of their own
_used: defaultdict[int, list[Aside | None]] = defaultdict(list)


@contextlib.contextmanager
def used(aside: Aside | None) -> Iterator[None]:
    """Forward passes inside leave their weights' gradients to it, if there is one."""
    place = _used[_device()]
    place.append(aside)
    try:
        yield
    finally:
        place.pop()
        if aside is not None:  # of what a pass that failed has handed over
            aside.forget()


def here() -> Aside | None:
    """What computes gradients of weights beside the pass, if anything."""
    place = _used[_device()]
    return place[-1] if place else None


def _device() -> int:
    """The current one, which autograd's threads have from the pass that they belong to."""
    return torch.cuda.current_device() if torch.cuda.is_initialized() else -1


def side_by_side(calls: Sequence[Callable[[], Tensor]], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Results of calls that do not depend on each other, each on a stream of its own where `here` has streams.

    inputs: all that they read besides weights. The first is called last and stays on the current stream, so that one
    that takes long comes first. At most one draws random numbers, as their order is not the same everywhere, and they
    share no norms, which would move at once; elsewhere they are called one after the other.
    """
    aside = here()
    if aside is None or len(calls) < 2:
        return [call() for call in calls]
    with aside.branches(len(calls) - 1) as streams:
        return _forked(calls, inputs, streams) if streams else [call() for call in calls]


def _forked(
    calls: Sequence[Callable[[], Tensor]], inputs: Sequence[Tensor], streams: list[torch.cuda.Stream]
) -> list[Tensor]:
    """`side_by_side` on the current stream and these; autograd runs each call's backward pass on its stream, too."""
    now = torch.cuda.current_stream(streams[0].device)
    results, begun = [], []
    try:
        for call, stream in zip(calls[1:], streams, strict=True):
            stream.wait_stream(now)
            begun.append(stream)
            for x in inputs:
                x.record_stream(stream)  # whoever frees it waits for this stream
            with torch.cuda.stream(stream):
                results.append(call())
        first = calls[0]()
    finally:
        for stream in begun:  # a recording may not wait for what it has not begun
            now.wait_stream(stream)
    for result in results:
        result.record_stream(now)
    return [first, *results]


def convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, aside: Aside) -> Tensor:
    """The layer's forward pass with these leaves, whose gradients are computed aside; x has their dtype."""
    how = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
    return _Convolved.apply(x, weight, bias, how, aside)


def watched(parameter: Tensor) -> bool:
    """Whether somebody is to be told of its gradient, which would not be noticed."""
    return bool(parameter._backward_hooks) or bool(getattr(parameter, "_post_accumulate_grad_hooks", None))


def fits(layer: Any, x: Any) -> bool:
    """Whether `convolved` can take a layer's place."""
    plain = type(x) is Tensor and x.ndim == 4 and x.is_floating_point() and torch.is_grad_enabled()
    return plain and type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


class _Convolved(torch.autograd.Function):
    """A convolution that hands its weight's gradient over."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any, aside: Aside) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.how, ctx.aside = weight, bias, how, aside
        stride, padding, dilation, groups = how
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x,), weight, bias = ctx.saved_tensors, ctx.weight, ctx.bias
        dy, (stride, padding, dilation, groups) = gradients[0], ctx.how

        def gradient(*wanted: bool) -> tuple[Tensor, ...]:
            sizes = None if bias is None else list(bias.shape)
            more = (sizes, stride, padding, dilation, False, [0, 0], groups)
            return torch.ops.aten.convolution_backward(dy, x, weight, *more, list(wanted))

        leaves = {1: weight, 2: bias}
        wanted = [leaf is not None and leaf.requires_grad for leaf in leaves.values()]

        def by_weights() -> Wanted:
            found = gradient(False, *wanted)
            return {leaf: found[i] for i, leaf in leaves.items() if leaf is not None and leaf.requires_grad}

        if any(wanted) and not ctx.aside.takes:
            return *gradient(ctx.needs_input_grad[0], *wanted), None, None
        if any(wanted):
            ctx.aside.later(by_weights, dy.numel())
        by_x = gradient(True, False, False)[0] if ctx.needs_input_grad[0] else None
        return by_x, None, None, None, None
