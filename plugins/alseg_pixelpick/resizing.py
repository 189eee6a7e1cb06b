"""The decoder's two inputs side by side: the context resized to the low-level map's grid, and that map."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from alseg.engine.attempts import works
from alseg_pixelpick.convolutions import resized

KINDS = (torch.float32, torch.bfloat16, torch.float16)
MOST = 32  # times as large at most: a kernel's loop is unrolled


def joined(context: Tensor, low: Tensor) -> Tensor:
    """Context [B, c, h, w], resized to H x W, and `low` [B, c', H, W]: [B, c + c', H, W] in channels-last memory.

    Bilinear with half-pixel centres. Where gradients are wanted on a GPU, a kernel writes both where they belong and
    another gathers the context's gradient; else it is torch's `cat` of `resized` maps.
    """
    size = (low.shape[-2], low.shape[-1])
    if torch.is_grad_enabled() and _fit(context, low) and has_kernels(low.device):
        return _Joined.apply(context, low)
    return torch.cat([resized(context, size), low], 1)


def _fit(context: Tensor, low: Tensor) -> bool:
    """Whether the kernels know such maps."""
    grows = all(small <= large <= MOST * small for small, large in zip(context.shape[2:], low.shape[2:], strict=True))
    known = low.is_cuda and low.dtype == context.dtype and low.dtype in KINDS
    return grows and known and low[:, 0].numel() * (low.shape[1] + context.shape[1]) < 2**31


@lru_cache
def has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels work on a device."""

    def attempt() -> None:
        with torch.enable_grad():
            context, low = (torch.ones(1, 16, side, side, device=device, requires_grad=True) for side in (2, 4))
            _Joined.apply(context, low).sum().backward()

    return works("resized maps", attempt, device)


class _Joined(torch.autograd.Function):
    """`resize_kernels` with their gradient."""

    @staticmethod
    def forward(ctx: Any, context: Tensor, low: Tensor) -> Tensor:
        from alseg_pixelpick import resize_kernels

        ctx.channels, ctx.size = context.shape[1], (context.shape[2], context.shape[3])
        last = torch.channels_last
        return resize_kernels.joined(context.contiguous(memory_format=last), low.contiguous(memory_format=last))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        from alseg_pixelpick import resize_kernels

        dy, by_context, by_low = gradients[0].contiguous(memory_format=torch.channels_last), None, None
        if ctx.needs_input_grad[0]:
            by_context = resize_kernels.context_gradient(dy, ctx.channels, ctx.size)
        if ctx.needs_input_grad[1]:
            # a batch norm's backward pass reads it, for which it must lie as the map does
            by_low = dy[:, ctx.channels :].contiguous(memory_format=torch.channels_last)
        return by_context, by_low
