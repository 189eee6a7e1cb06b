"""The cells of a map around points, and a gradient that costs little on a GPU and is the same each time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from alseg.grid import cells_around
from alseg_pixelpick.resizing import KINDS, has_kernels

MOST = 256  # points of an image, up to which a kernel finds those of one cell by looking at them all


def cells_at(maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The four cells of maps [B, c, h, w] around points [B, n, 2], [B, n, 4, c], and their weights, [B, n, 4].

    Where gradients are wanted on a GPU by a kernel each way; else as an embedding is looked up, whose gradient adds in
    a fixed order on a GPU, where that of an index adds in any, or sorts first.
    """
    batch, channels, height, width = maps.shape
    known = maps.is_cuda and maps.dtype in KINDS and maps.numel() < 2**31 and 0 < points.shape[1] <= MOST
    if known and torch.is_grad_enabled() and has_kernels(maps.device):
        return _LookedUp.apply(maps, points)
    cells, weights = cells_around(points, (height, width))
    image = torch.arange(batch, device=maps.device)[:, None, None] * (height * width)
    flat = maps.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of a channels-last map
    return F.embedding(image + cells, flat), weights


class _LookedUp(torch.autograd.Function):
    """`cell_kernels` with their gradient."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        from alseg_pixelpick import cell_kernels

        maps = maps.contiguous(memory_format=torch.channels_last)
        found, cells, weights = cell_kernels.looked_up(maps, points.float().contiguous())
        ctx.save_for_backward(cells)
        ctx.shape = maps.shape
        ctx.mark_non_differentiable(weights)
        return found, weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        from alseg_pixelpick import cell_kernels

        (cells,) = ctx.saved_tensors
        return cell_kernels.gradient(gradients[0].contiguous(), cells, ctx.shape), None
