"""Convolutions that give the same numbers as torch's with less work."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DilatedConv2d(nn.Conv2d):
    """A dilated 3x3 convolution that leaves out the taps which, on a small map, see only padding."""

    def __init__(self, inputs: int, outputs: int, rate: int) -> None:
        super().__init__(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] -> [B, c', h, w]."""
        rate = self.dilation[0]
        weight, padding = seen_taps(self.weight, rate, x.shape[-2:])
        if x.device.type == "cpu" and torch.is_grad_enabled() and _share_seen(rate, x.shape[-2:]) < 0.6:
            lowers = torch.is_autocast_enabled("cpu") and x.dtype == torch.float32
            x = x.to(torch.get_autocast_dtype("cpu")) if lowers else x
            return _ByTaps.apply(x, weight, padding, rate)
        return F.conv2d(x, weight, padding=padding, dilation=rate)


class _ByTaps(torch.autograd.Function):
    """A dilated convolution whose weight's gradient is computed tap by tap where these see more than padding.

    oneDNN leaves the padding out everywhere but there.
    """

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


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, c, h, w] resized to H x W, bilinear with half-pixel centres: [B, c, H, W] in channels-last memory.

    By one matrix an axis: on a GPU torch's own takes float32 under autocast, and its gradient adds in any order.
    """
    height, width = maps.shape[-2:]
    rows, columns = (_matrix(*axis, maps) for axis in zip(size, (height, width), strict=True))
    tall = rows @ maps.permute(0, 2, 3, 1).flatten(2)  # [B, H, w c]
    return (columns @ tall.unflatten(2, (width, -1))).permute(0, 3, 1, 2)


def _matrix(length: int, cells: int, maps: Tensor) -> Tensor:
    """[length, cells], the bilinear weights of an axis; kept on its device, as nothing is copied to one in a step."""
    if type(maps) is Tensor:
        return _kept_matrix(length, cells, maps.dtype, maps.device)
    return _made_matrix(length, cells)[:, :cells].to(maps)  # a tensor of a trace must not outlive it


@lru_cache(None)  # for good: a recorded step reads it where it lies, and never asks for it again
def _kept_matrix(length: int, cells: int, kind: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return _made_matrix(length, cells).to(device, kind)[:, :cells]


def _made_matrix(length: int, cells: int) -> Tensor:
    """Its rows lie at multiples of eight in memory, which a GPU's matrix units want."""
    weights = torch.zeros(length, -(-cells // 8) * 8)
    weights[:, :cells] = torch.from_numpy(_bilinear(np.arange(length), length, cells))
    return weights


def resized_convolution(maps: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A 3x3 convolution, zero-padded, of maps [B, c, h, w] resized to H x W: [B, c', H, W].

    Both are linear, so each of the nine taps is multiplied on the small grid, and their maps are resized and
    shifted together by one matrix an axis; bilinear with half-pixel centres.
    """
    kind, (height, width) = maps.dtype, maps.shape[-2:]
    taps = weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]  # [9 c', c, 1, 1]
    small = F.conv2d(maps, taps.to(kind)).permute(0, 2, 3, 1)  # [B, h, w, 9 c']
    small = small.unflatten(3, (3, 3, -1)).permute(0, 3, 1, 4, 2, 5)  # [B, 3, h, 3, w, c']
    rows = torch.from_numpy(_shifted_weights(size[0], height)).to(maps)  # [H, 3 h]
    columns = torch.from_numpy(_shifted_weights(size[1], width)).to(maps)
    tall = rows @ small.flatten(1, 2).flatten(2)  # [B, H, 3 w c']
    return (columns @ tall.unflatten(2, (3 * width, -1))).permute(0, 3, 1, 2)  # [B, H, W, c'] in memory


@lru_cache(64)
def _shifted_weights(length: int, cells: int) -> np.ndarray:
    """[length, 3 cells]: bilinear weights of the places before, at and after each; 0 beyond the ends."""
    weights = _bilinear(np.arange(-1, length + 1), length, cells)
    weights[0] = weights[-1] = 0
    # an array: a tensor made while a model is traced would be one of the trace's
    return np.concatenate([weights[:-2], weights[1:-1], weights[2:]], 1)


def _bilinear(places: np.ndarray, length: int, cells: int) -> np.ndarray:
    """[n, cells], float32: how much each of `cells` weighs at places of an axis of `length`."""
    position = np.clip((places + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    return np.clip(1 - abs(position[:, None] - np.arange(cells)), 0, None).astype(np.float32)
