"""Maps pooled to one cell, and such a cell spread over a map, in training by matrix products.

On a GPU torch's own pooling uses few of its processors, and the gradients of both lie otherwise in memory than the
maps they are added to.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MeanPool2d(nn.Module):
    """Global average pooling, as by nn.AdaptiveAvgPool2d(1)."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] -> [B, c, 1, 1]."""
        return _Mean.apply(x) if _by_products(self, x) else F.adaptive_avg_pool2d(x, 1)


def spread(module: nn.Module, pooled: Tensor, maps: Tensor) -> Tensor:
    """A module's pooled map [B, c, 1, 1] -> [B, c, h, w] in channels-last memory, the size of `maps`."""
    size = (maps.shape[2], maps.shape[3])
    if _by_products(module, maps):
        return _spread(pooled, size)
    return pooled.expand(-1, -1, *size).contiguous(memory_format=torch.channels_last)


def _by_products(module: nn.Module, maps: Tensor) -> bool:
    """Whether gradients will be wanted, and the maps' cells are a matrix without a copy."""
    return module.training and torch.is_grad_enabled() and maps.is_contiguous(memory_format=torch.channels_last)


class _Mean(torch.autograd.Function):
    """The mean of each image's cells; its gradient by one product, too, with no multiplication of a map after it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size, (height, width) = x.shape[2:], x.shape[2:]
        ones = x.new_ones(len(x), 1, height * width)
        return _map(_product(ones, _cells(x), 1 / (height * width)), (1, 1))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        height, width = ctx.size
        return _spread(gradients[0], (height, width), 1 / (height * width))


def _spread(pooled: Tensor, size: tuple[int, int], scale: float = 1) -> Tensor:
    """[B, c, 1, 1] -> [B, c, h, w], `scale` times as large."""
    ones = pooled.new_ones(len(pooled), size[0] * size[1], 1)
    return _map(_product(ones, _cells(pooled), scale), size)


def _product(one: Tensor, other: Tensor, scale: float) -> Tensor:
    """[B, n, k] and [B, k, m] -> [B, n, m], scaled before it is rounded; what is empty is not read."""
    return torch.baddbmm(one.new_empty(()), one, other, beta=0, alpha=scale)


def _cells(maps: Tensor) -> Tensor:
    """[B, c, h, w] -> [B, h w, c], a view of channels-last memory."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _map(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, h w, c] -> [B, c, h, w], a view in channels-last memory."""
    return cells.unflatten(1, size).permute(0, 3, 1, 2)
