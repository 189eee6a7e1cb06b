# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of a dilated depthwise convolution that keeps the size, for which cuDNN has slow ones only.

Maps are [B, C, H, W] in channels-last memory, a weight is [C, 1, K, K]. No atomics: the same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS, CHANNELS = 32, 64  # of a tile, which a program looks at at a time
PARTS = 16  # of the cells, whose gradients of the weight are added up at the end
VARIED = ("cells", "height", "width", "chunk")  # numbers for which nothing is compiled anew


@triton.jit(do_not_specialize=VARIED)
def _convolve(
    x, weight, y, cells, height, width, channels, rate,
    FLIP: tl.constexpr, K: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The convolution, or with FLIP that by the mirrored kernel, which is the gradient of the input."""
    cell, channel = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(1) * BC + tl.arange(0, BC)
    row, column = (cell // width) % height, cell % width
    here = channel < channels
    total = tl.zeros([BP, BC], tl.float32)
    for tap in tl.static_range(K * K):
        down, across = (tap // K - K // 2) * rate, (tap % K - K // 2) * rate
        seen = (cell < cells) & (row + down >= 0) & (row + down < height)
        seen = seen & (column + across >= 0) & (column + across < width)
        place = (cell + down * width + across)[:, None] * channels + channel[None, :]
        value = tl.load(x + place, seen[:, None] & here[None, :], 0.0).to(tl.float32)
        by = tl.load(weight + channel * (K * K) + (K * K - 1 - tap if FLIP else tap), here, 0.0).to(tl.float32)
        total += value * by[None, :]
    tl.store(y + cell[:, None] * channels + channel[None, :], total, (cell < cells)[:, None] & here[None, :])


@triton.jit(do_not_specialize=VARIED)
def _weigh(
    x, dy, parts, cells, height, width, channels, rate, chunk, K: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):
    """The gradient of one tap of the weight over a part of the cells."""
    part, channel, tap = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC), tl.program_id(2)
    down, across = (tap // K - K // 2) * rate, (tap % K - K // 2) * rate
    here = channel < channels
    total = tl.zeros([BP, BC], tl.float32)
    for first in range(part * chunk, tl.minimum((part + 1) * chunk, cells), BP):
        cell = first + tl.arange(0, BP)
        row, column = (cell // width) % height, cell % width
        seen = (cell < cells) & (row + down >= 0) & (row + down < height)
        seen = (seen & (column + across >= 0) & (column + across < width))[:, None] & here[None, :]
        place = cell[:, None] * channels + channel[None, :]
        gradient = tl.load(dy + place, seen, 0.0).to(tl.float32)
        value = tl.load(x + place + (down * width + across) * channels, seen, 0.0).to(tl.float32)
        total += gradient * value
    tl.store(parts + (part * channels + channel) * (K * K) + tap, tl.sum(total, 0), here)


def convolved(x: Tensor, weight: Tensor, rate: int, flip: bool = False) -> Tensor:
    """The maps convolved by the weight, or by the weight mirrored; padded with zeros to keep the size."""
    batch, channels, height, width = x.shape
    cells, side = batch * height * width, weight.shape[-1]
    y = torch.empty_like(x)
    grid = (triton.cdiv(cells, CELLS), triton.cdiv(channels, CHANNELS))
    _convolve[grid](x, weight, y, cells, height, width, channels, rate, flip, side, CELLS, CHANNELS)
    return y


def weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, rate: int) -> Tensor:
    """The weight's gradient, float32 [C, 1, K, K]."""
    batch, channels, height, width = x.shape
    cells, side = batch * height * width, weight.shape[-1]
    chunk = triton.cdiv(triton.cdiv(cells, PARTS), CELLS) * CELLS
    count = triton.cdiv(cells, chunk)
    parts = x.new_empty(count, *weight.shape, dtype=torch.float32)
    grid = (count, triton.cdiv(channels, CHANNELS), side * side)
    _weigh[grid](x, dy, parts, cells, height, width, channels, rate, chunk, side, CELLS, CHANNELS)
    return parts.sum(0)
