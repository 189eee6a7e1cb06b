"""Dilated 3x3 convolutions on a CPU, whose kernels' outer taps see little but padding on a small map.

- Taps that see nothing else are left out.
- In training the weight's gradient is computed tap by tap where these see more; oneDNN leaves the padding out
  everywhere but there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def is_dilated(module: Any) -> bool:
    """Whether it is torch's own dilated 3x3 convolution without bias, groups and stride that keeps the size."""
    if type(module) is not nn.Conv2d or module.bias is not None or module.padding_mode != "zeros":
        return False
    square = module.kernel_size == (3, 3) and module.dilation[0] == module.dilation[1] > 1
    return square and module.padding == module.dilation and module.stride == (1, 1) and module.groups == 1


def convolved(module: Any, x: Tensor) -> Tensor:
    """Such a convolution's own forward pass [B, c, h, w] -> [B, c', h, w], by fewer taps where gradients are wanted."""
    if not torch.is_grad_enabled() or x.dim() != 4 or not x.device.type == module.weight.device.type == "cpu":
        return type(module).forward(module, x)
    lowers = torch.is_autocast_enabled("cpu") and x.dtype == torch.float32
    kind = torch.get_autocast_dtype("cpu") if lowers else x.dtype
    fits = kind in FLOATS and (lowers or module.weight.dtype == kind) and 0 not in x.shape
    rate, size = module.dilation[0], x.shape[2:]
    if not fits or x.shape[1] != module.in_channels:  # a mistake is torch's to tell
        return type(module).forward(module, x)
    weight, padding = seen_taps(module.weight, rate, size)
    if _share_seen(rate, size) < 0.6:
        return _ByTaps.apply(x.to(kind), weight, padding, rate)
    return F.conv2d(x, weight, padding=padding, dilation=rate)


class _ByTaps(torch.autograd.Function):
    """A dilated convolution whose weight's gradient is computed tap by tap."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, padding: tuple[int, int], rate: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.rate = padding, rate
        return F.conv2d(x, weight.to(x.dtype), padding=padding, dilation=rate)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        dy, kernel = gradients[0], weight.shape[2:]
        by_x: Tensor | None = torch.ops.aten.convolution_backward(
            *(dy, x, weight.to(x.dtype), None, [1, 1], list(ctx.padding), [ctx.rate] * 2, False, [0, 0], 1),
            [ctx.needs_input_grad[0], False, False],
        )[0]
        taps = []
        for i, j in np.ndindex(*kernel):
            down, across = i * ctx.rate - ctx.padding[0], j * ctx.rate - ctx.padding[1]
            taps.append(_overlapping(dy, -down, -across).T @ _overlapping(x, down, across))
        return by_x, torch.stack(taps, -1).unflatten(-1, kernel), None, None


def _overlapping(maps: Tensor, down: int, across: int) -> Tensor:
    """Those cells [n, c] of maps [B, c, h, w] over which they lie themselves when moved by so many cells."""
    height, width = maps.shape[2:]
    rows = slice(max(0, down), height + min(0, down))
    columns = slice(max(0, across), width + min(0, across))
    return maps.permute(0, 2, 3, 1)[:, rows, columns].flatten(0, 2)


def _share_seen(rate: int, size: torch.Size) -> float:
    """What part of a dilated 3x3 kernel's taps see more than padding on a map of `size`."""
    height, width = ((side + 2 * max(0, side - rate)) / (side * (3 if rate < side else 1)) for side in size)
    return height * width


def seen_taps(weight: Tensor, rate: int, size: torch.Size) -> tuple[Tensor, tuple[int, int]]:
    """Of a dilated 3x3 kernel the taps that see more than padding on a map of `size`, and the padding to use."""
    padding = [rate, rate]
    if rate >= size[0]:
        weight, padding[0] = weight[:, :, 1:2], 0
    if rate >= size[1]:
        weight, padding[1] = weight[:, :, :, 1:2], 0
    return weight, (padding[0], padding[1])
