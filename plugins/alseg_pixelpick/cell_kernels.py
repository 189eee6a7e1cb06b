# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels that look up the four cells of a map around each point, and give their gradients back to the map.

Maps are [B, C, H, W] in channels-last memory; sums are float32. No atomics: the same input gives the same bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, CHANNELS = 16, 64  # of a tile of cells, which a program looks at at a time
OTHERS = 64  # cells among which a program looks for its own at a time
VARIED = ("rows", "each", "height", "width")  # numbers for which nothing is compiled anew


@triton.jit
def _along(place, length, second):
    """On an axis of `length` the first or second of the two cells around a place in [0, 1], and what it weighs."""
    position = tl.minimum(tl.maximum(place * length - 0.5, 0.0), length - 1.0)
    first = tl.minimum(position.to(tl.int32), tl.maximum(length - 2, 0))
    share = position - first
    return tl.minimum(first + second, length - 1), tl.where(second == 1, share, 1.0 - share)


@triton.jit(do_not_specialize=VARIED)
def _look_up(
    maps, points, out, cells, weights, rows, each, height, width, channels, BR: tl.constexpr, BC: tl.constexpr
):
    """Each row of the output is a cell, four a point and `each` an image; where it lies, and what it weighs."""
    row, channel = tl.program_id(0) * BR + tl.arange(0, BR), tl.program_id(1) * BC + tl.arange(0, BC)
    there = row < rows
    y, x = tl.load(points + row // 4 * 2, there, 0.0), tl.load(points + row // 4 * 2 + 1, there, 0.0)
    down, by_row = _along(y, height, row // 2 % 2)
    across, by_column = _along(x, width, row % 2)
    cell = (row // each * height + down) * width + across
    if tl.program_id(1) == 0:
        tl.store(cells + row, cell, there)
        tl.store(weights + row, by_row * by_column, there)
    seen = there[:, None] & (channel < channels)[None, :]
    value = tl.load(maps + cell[:, None] * channels + channel[None, :], seen, 0.0)
    tl.store(out + row[:, None] * channels + channel[None, :], value, seen)


@triton.jit(do_not_specialize=VARIED)
def _give_back(dy, cells, dx, each, channels, BR: tl.constexpr, BC: tl.constexpr):
    """The gradients of all rows of an image that are the same cell, added up by the first of them."""
    row, channel = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    here = channel < channels
    cell, start = tl.load(cells + row), row // each * each
    before, total = tl.zeros([BR], tl.int32), tl.zeros([BR, BC], tl.float32)
    for first in range(0, each, BR):
        other = first + tl.arange(0, BR)
        same = tl.load(cells + start + other, other < each, -1) == cell
        before += (same & (start + other < row)).to(tl.int32)
        place = (start + other)[:, None] * channels + channel[None, :]
        total += tl.load(dy + place, same[:, None] & here[None, :], 0.0).to(tl.float32)
    leads = tl.sum(before, 0) == 0
    tl.store(dx + cell * channels + channel, tl.sum(total, 0), here & leads)


def looked_up(maps: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The four cells of maps [B, c, h, w] around points [B, n, 2], [B, n, 4, c]; their rows in memory and weights.

    These are int32 and float32 [B, n, 4].
    """
    channels, height, width = maps.shape[1:]
    shape = (*points.shape[:2], 4)
    out = torch.empty((*shape, channels), dtype=maps.dtype, device=maps.device)
    cells = torch.empty(shape, dtype=torch.int32, device=maps.device)
    weights = torch.empty(shape, dtype=torch.float32, device=maps.device)
    rows = cells.numel()
    _look_up[(triton.cdiv(rows, ROWS), triton.cdiv(channels, CHANNELS))](
        *(maps, points, out, cells, weights, rows, 4 * shape[1], height, width, channels, ROWS, CHANNELS)
    )
    return out, cells, weights


def gradient(dy: Tensor, cells: Tensor, shape: torch.Size) -> Tensor:
    """The gradient of maps of a shape [B, c, h, w] from that of what was looked up, [B, n, 4, c]."""
    dx = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last).zero_()
    grid = (cells.numel(), triton.cdiv(shape[1], CHANNELS))
    _give_back[grid](dy, cells, dx, cells[0].numel(), shape[1], OTHERS, CHANNELS)
    return dx
