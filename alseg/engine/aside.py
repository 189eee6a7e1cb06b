"""Gradients of weights on a stream beside the backward pass.

Nothing in a backward pass waits for them, and on a large GPU most kernels of a small network leave much of it idle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 1  # how many gradients are handed to the stream at once, each time with a wait for what came before

Wanted = dict[Tensor, Tensor]  # leaves and their gradients


class Aside:
    """A stream on which the gradients of weights are computed, from a step's backward pass until `join`.

    On a CPU, which has no streams, they are computed where they are handed over.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._due: list[Callable[[], Wanted]] = []
        self._held: list[Callable[[], Wanted]] = []  # with what they read, whose memory is the other stream's
        self._found: Wanted = {}

    def later(self, work: Callable[[], Wanted]) -> None:
        """Compute gradients beside what comes after."""
        self._due.append(work)
        if len(self._due) >= AT_ONCE:
            self._start()

    def join(self) -> None:
        """Let the current stream wait for all that was begun, and add it to the gradients that the leaves have."""
        self._start()
        if self._held and self._stream is not None:  # a recording may not wait for what it has not begun
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
        for leaf, gradient in self._found.items():
            leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        self.forget()

    def forget(self) -> None:
        """Keep nothing, such as what a backward pass that failed has left."""
        self._due, self._held, self._found = [], [], {}

    def _start(self) -> None:
        if self._due and self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream), torch.no_grad():  # a stream that is None changes nothing
            for work in self._due:
                for leaf, gradient in work().items():
                    self._found[leaf] = self._found[leaf] + gradient if leaf in self._found else gradient
        self._held += self._due
        self._due = []


_now: ContextVar[Aside | None] = ContextVar("aside", default=None)


@contextlib.contextmanager
def used(aside: Aside | None) -> Iterator[None]:
    """Forward passes inside leave their weights' gradients to it, if there is one."""
    if aside is not None:
        aside.forget()
    token = _now.set(aside)
    try:
        yield
    finally:
        _now.reset(token)


def here() -> Aside | None:
    """What computes gradients of weights beside the pass, if anything."""
    return _now.get()


def convolved(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None, aside: Aside) -> Tensor:
    """The layer's forward pass with these leaves, whose gradients are computed aside; x has their dtype."""
    how = (list(layer.stride), list(layer.padding), list(layer.dilation), layer.groups)
    return _Convolved.apply(x, weight, bias, how, aside)


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

        if any(wanted):
            ctx.aside.later(by_weights)
        by_x = gradient(True, False, False)[0] if ctx.needs_input_grad[0] else None
        return by_x, None, None, None, None
