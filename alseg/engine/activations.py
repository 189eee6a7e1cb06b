"""Activations in place that keep what they give, not what they were given.

torch's hardtanh_, which ReLU6 in place is, copies its whole input for the backward pass; where it clamped can be seen
in its result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class _Clamped(torch.autograd.Function):
    """`x` clamped in place, with the gradient that torch's hardtanh has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(x.clamp_(low, high))
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.ops.aten.hardtanh_backward(gradients[0], ctx.saved_tensors[0], *ctx.bounds), None, None


@contextlib.contextmanager
def uncopied(model: nn.Module) -> Iterator[None]:
    """A model's ReLU6 and Hardtanh in place are computed without that copy inside."""
    found = [
        module
        for module in model.modules()
        if type(module) in (nn.ReLU6, nn.Hardtanh) and module.inplace and "forward" not in vars(module)
    ]
    try:
        for module in found:
            module.forward = partial(_clamped, module)
        yield
    finally:
        for module in found:
            vars(module).pop("forward", None)


def _clamped(module: Any, x: Tensor) -> Tensor:
    if x.requires_grad and torch.is_grad_enabled() and not (x.is_leaf or x._is_view()):
        return _Clamped.apply(x, module.min_val, module.max_val)
    return type(module).forward(module, x)
