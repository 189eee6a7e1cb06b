# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of small maps resized bilinearly (half-pixel centres, clamped at the edges) beside large ones.

Maps are [B, C, H, W] in channels-last memory; sums are float32. No atomics: the same input gives the same bits.
"""

from __future__ import annotations

from math import ceil

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS, CHANNELS = 32, 64  # of a tile of the large maps, which a program looks at at a time
SMALL_CELLS = 16  # the same of the small maps, whose gradient a program adds up
VARIED = ("cells", "height", "width", "short", "narrow", "rows", "tiles")  # for which nothing is compiled anew


@triton.jit
def _position(place, step, length):
    """Where cells of a large axis lie on a small one of `length`, in its cells."""
    return tl.minimum(tl.maximum((place + 0.5) * step - 0.5, 0.0), length - 1.0)


@triton.jit(do_not_specialize=VARIED)
def _join(
    context, low, out, cells, height, width, short, narrow, channels, others, down, across, tiles,
    BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The first `tiles` programs of a cell resize the context [B, short, narrow, channels], the others copy `low`."""
    cell, tile = tl.program_id(0) * BP + tl.arange(0, BP), tl.program_id(1)
    there = cell < cells
    if tile < tiles:
        channel = tile * BC + tl.arange(0, BC)
        seen = there[:, None] & (channel < channels)[None, :]
        y, x = _position((cell // width) % height, down, short), _position(cell % width, across, narrow)
        top, left = y.to(tl.int32), x.to(tl.int32)
        bottom, right = tl.minimum(top + 1, short - 1), tl.minimum(left + 1, narrow - 1)
        first = cell // (height * width) * short  # row of the image in the context
        upper, lower = (first + top) * narrow, (first + bottom) * narrow
        one = tl.load(context + (upper + left)[:, None] * channels + channel[None, :], seen, 0.0).to(tl.float32)
        two = tl.load(context + (upper + right)[:, None] * channels + channel[None, :], seen, 0.0).to(tl.float32)
        three = tl.load(context + (lower + left)[:, None] * channels + channel[None, :], seen, 0.0).to(tl.float32)
        four = tl.load(context + (lower + right)[:, None] * channels + channel[None, :], seen, 0.0).to(tl.float32)
        by_x, by_y = (x - left)[:, None], (y - top)[:, None]
        above, below = one + (two - one) * by_x, three + (four - three) * by_x
        place = cell[:, None] * (channels + others) + channel[None, :]
        tl.store(out + place, above + (below - above) * by_y, seen)
    else:
        channel = (tile - tiles) * BC + tl.arange(0, BC)
        seen = there[:, None] & (channel < others)[None, :]
        value = tl.load(low + cell[:, None] * others + channel[None, :], seen, 0.0)
        tl.store(out + cell[:, None] * (channels + others) + channels + channel[None, :], value, seen)


@triton.jit
def _share(place, cell, step, length):
    """How much a cell of a small axis weighs at a place of the large one."""
    return tl.maximum(1.0 - tl.abs(_position(place, step, length) - cell), 0.0)


@triton.jit(do_not_specialize=VARIED)
def _gather(
    dy, dx, height, width, short, narrow, rows, channels, others, down, across, tall, wide,
    K: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The context's gradient: each small cell adds up `rows` x K large ones at most, those that see it."""
    line, column = tl.program_id(0), tl.program_id(1) * BP + tl.arange(0, BP)
    channel = tl.program_id(2) * BC + tl.arange(0, BC)
    here, there = channel < channels, column < narrow
    image, row = line // short, line % short
    start = tl.maximum(((row - 0.5) * tall + 0.5).to(tl.int32), 0)
    first = tl.maximum(((column - 0.5) * wide + 0.5).to(tl.int32), 0)
    total = tl.zeros([BP, BC], tl.float32)
    for y in range(start, tl.minimum(start + rows, height)):
        by_row = _share(y, row, down, short)
        for k in tl.static_range(K):  # unrolled, so that K loads are on their way at once
            x = first + k
            by = _share(x, column, across, narrow) * by_row
            seen = there & (x < width) & (by > 0.0)
            place = ((image * height + y) * width + x)[:, None] * (channels + others) + channel[None, :]
            value = tl.load(dy + place, seen[:, None] & here[None, :], 0.0).to(tl.float32)
            total += value * by[:, None]
    place = (line * narrow + column)[:, None] * channels + channel[None, :]
    tl.store(dx + place, total, there[:, None] & here[None, :])


def joined(context: Tensor, low: Tensor) -> Tensor:
    """Context [B, c, h, w] resized to the size of `low` [B, c', H, W], and `low`: [B, c + c', H, W]."""
    batch, channels, short, narrow = context.shape
    others, height, width = low.shape[1:]
    shape = (batch, channels + others, height, width)
    out = torch.empty(shape, dtype=low.dtype, device=low.device, memory_format=torch.channels_last)
    cells, tiles = batch * height * width, triton.cdiv(channels, CHANNELS)
    _join[(triton.cdiv(cells, CELLS), tiles + triton.cdiv(others, CHANNELS))](
        *(context, low, out, cells, height, width, short, narrow, channels, others),
        *(short / height, narrow / width, tiles, CELLS, CHANNELS),
    )
    return out


def context_gradient(dy: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """The gradient [B, c, h, w] of a context of `size`, from that of `joined`'s maps [B, c + c', H, W]."""
    batch, everything, height, width = dy.shape
    short, narrow = size
    shape = (batch, channels, short, narrow)
    dx = torch.empty(shape, dtype=dy.dtype, device=dy.device, memory_format=torch.channels_last)
    grid = (batch * short, triton.cdiv(narrow, SMALL_CELLS), triton.cdiv(channels, CHANNELS))
    _gather[grid](
        *(dy, dx, height, width, short, narrow, most_seen(height, short), channels, everything - channels),
        *(short / height, narrow / width, height / short, width / narrow),
        *(most_seen(width, narrow), SMALL_CELLS, CHANNELS),
    )
    return dx


def most_seen(length: int, cells: int) -> int:
    """How many places of an axis of `length` see one of `cells` at most."""
    return ceil(2 * length / cells)
