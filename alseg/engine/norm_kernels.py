# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of a batch norm in training with the activation after it, on [rows, channels] in memory.

Forward and backward pass take two each: sums of parts of the rows, added up by the program that ends last, and one pass
over the tensor. What is added is added in the same order each time: the same input gives the same bits. `norms` is what
calls them, and torch's own operators are their twin.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

SUM_TILE = (128, 16, 4)  # rows and columns of what a program sums at a time, and its warps
STAGES = 1  # for how many such tiles' numbers it asks ahead
PASS_TILE = (128, 32, 4)  # of what a program of the pass over the tensor takes
PROGRAMS = 528  # that sum
FEW_PARTS, PARTS = 32, 256  # of the rows at most, which a program adds up
VARIED = ("rows", "chunk", "parts")  # numbers for which nothing is compiled anew: that takes a second a kernel


@triton.jit
def _place(channels, BC: tl.constexpr):
    """A program's place among those along the rows, and its columns; programs of the same rows run together."""
    across = tl.cdiv(channels, BC)
    block = tl.program_id(0) % across
    return tl.program_id(0) // across, block, block * BC + tl.arange(0, BC)


@triton.jit
def _normalised(value, mean, rate, weight, bias, KIND: tl.constexpr):
    """What the norm gives before its activation, rounded as torch's is."""
    return ((value.to(tl.float32) - mean) * (rate * weight) + bias).to(KIND).to(tl.float32)


@triton.jit
def _ended_last(tickets, block, parts):
    """Whether all other programs of these columns have written what they write."""
    tl.debug_barrier()
    last = tl.atomic_add(tickets + block, 1, sem="acq_rel") == parts - 1
    if last:
        tl.store(tickets + block, 0)  # for the next time
    return last


@triton.jit(do_not_specialize=VARIED)
def _moments(
    x, means, squares, tickets, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum,
    eps, ALL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Each channel's mean and 1 / deviation, from parts of the rows; the running ones are moved, the batch is counted.

    Of each part: the mean, and the sum of squared distances from it, both summed of the distances from its first row,
    which keeps the digits where a mean is far from 0, and across threads at the end alone.
    """
    part, block, column = _place(channels, BC)
    here = column < channels
    start = part * chunk
    stop = tl.minimum(start + chunk, rows)
    origin = tl.load(x + start * channels + column, here, 0.0).to(tl.float32)
    total, square = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for row in tl.range(start, stop, BR, num_stages=STAGES):
        line = row + tl.arange(0, BR)
        inside = (line < stop)[:, None] & here[None, :]
        value = tl.load(x + line[:, None] * channels + column[None, :], inside, 0.0).to(tl.float32)
        apart = tl.where(inside, value - origin[None, :], 0.0)
        total += apart
        square += apart * apart
    count = (stop - start).to(tl.float32)
    gap = tl.sum(total, 0) / count
    tl.store(means + part * channels + column, origin + gap, here)
    tl.store(squares + part * channels + column, tl.maximum(tl.sum(square, 0) - gap * gap * count, 0.0), here)
    if _ended_last(tickets, block, parts):
        each = tl.arange(0, ALL)
        among = (each < parts)[:, None] & here[None, :]
        place = each[:, None] * channels + column[None, :]
        counts = tl.where(each < parts, tl.minimum(rows - each * chunk, chunk), 0).to(tl.float32)[:, None]
        some = tl.load(means + place, among, 0.0, cache_modifier=".cg")
        squared = tl.load(squares + place, among, 0.0, cache_modifier=".cg")
        centre = tl.sum(some * counts, 0) / rows
        aside = tl.where(among, some - centre[None, :], 0.0)
        whole = tl.sum(squared + aside * aside * counts, 0)
        tl.store(mean + column, centre, here)
        tl.store(rate + column, 1.0 / tl.sqrt(whole / rows + eps), here)
        before = tl.load(running_mean + column, here, 0.0)
        tl.store(running_mean + column, before + momentum * (centre - before), here)
        before = tl.load(running_var + column, here, 0.0)
        unbiased = whole / tl.maximum(rows - 1, 1)
        tl.store(running_var + column, before + momentum * (unbiased - before), here)
        if block == 0:
            tl.store(tracked, tl.load(tracked) + 1)


@triton.jit(do_not_specialize=VARIED)
def _apply(x, y, mean, rate, weight, bias, rows, channels, low, high, BR: tl.constexpr, BC: tl.constexpr):
    """The normalised and activated values."""
    tile, _, column = _place(channels, BC)
    line, here = tile * BR + tl.arange(0, BR), column < channels
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    value = tl.load(x + place, inside, 0.0)
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    out = _normalised(value, centre, by, scale, shift, value.dtype)
    out = tl.where(out < low, low, out)  # which lets NaN pass
    out = tl.where(out > high, high, out)
    tl.store(y + place, out, inside)


@triton.jit
def _passed(gradient, out, low, high):
    """The gradient before the activation, which clamps to low .. high."""
    return tl.where((out > low) & (out < high), gradient, 0.0)


@triton.jit(do_not_specialize=VARIED)
def _products(
    x, dy, pitch, mean, rate, weight, bias, sums, products, tickets, dbias, dweight, rows, channels, chunk, parts,
    low, high, ALL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """The gradients of weight and bias, from the sums of parts of the rows."""
    part, block, column = _place(channels, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    start = part * chunk
    stop = tl.minimum(start + chunk, rows)
    total, product = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for row in tl.range(start, stop, BR, num_stages=STAGES):
        line = row + tl.arange(0, BR)
        inside = (line < stop)[:, None] & here[None, :]
        place = line[:, None] * channels + column[None, :]
        value = tl.load(x + place, inside, 0.0)
        gradient = tl.load(dy + line[:, None] * pitch + column[None, :], inside, 0.0).to(tl.float32)
        gradient = _passed(gradient, _normalised(value, centre, by, scale, shift, value.dtype), low, high)
        total += gradient
        product += gradient * (value.to(tl.float32) - centre) * by
    tl.store(sums + part * channels + column, tl.sum(total, 0), here)
    tl.store(products + part * channels + column, tl.sum(product, 0), here)
    if _ended_last(tickets, block, parts):
        each = tl.arange(0, ALL)
        among = (each < parts)[:, None] & here[None, :]
        place = each[:, None] * channels + column[None, :]
        added = tl.load(sums + place, among, 0.0, cache_modifier=".cg")
        multiplied = tl.load(products + place, among, 0.0, cache_modifier=".cg")
        tl.store(dbias + column, tl.sum(added, 0), here)
        tl.store(dweight + column, tl.sum(multiplied, 0), here)


@triton.jit(do_not_specialize=VARIED)
def _back(
    x, dy, pitch, dx, mean, rate, weight, bias, dweight, dbias, rows, channels, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of the input."""
    tile, _, column = _place(channels, BC)
    line, here = tile * BR + tl.arange(0, BR), column < channels
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    value = tl.load(x + place, inside, 0.0)
    gradient = tl.load(dy + line[:, None] * pitch + column[None, :], inside, 0.0).to(tl.float32)
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    total, product = tl.load(dbias + column, here, 0.0)[None, :], tl.load(dweight + column, here, 0.0)[None, :]
    gradient = _passed(gradient, _normalised(value, centre, by, scale, shift, value.dtype), low, high)
    unit = (value.to(tl.float32) - centre) * by
    tl.store(dx + place, (gradient - (total + unit * product) / rows) * (scale * by), inside)


_tickets: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def tickets_of(norm: Any, x: Tensor) -> Tensor:
    """Zeros, one for the programs of each block of a norm's columns, which leave them so."""
    found = _tickets.get(norm)
    if found is None or found.device != x.device:
        found = _tickets[norm] = torch.zeros(-(-x.shape[1] // SUM_TILE[1]), dtype=torch.int32, device=x.device)
    return found


def _parted(x: Tensor) -> tuple[int, int, int, int, int]:
    """Rows and channels of a tensor, rows of a part, parts, and how many programs sum."""
    channels = x.shape[1]
    rows = x.numel() // channels
    tall, across = SUM_TILE[0], triton.cdiv(channels, SUM_TILE[1])
    chunk = triton.cdiv(triton.cdiv(rows, max(1, min(PARTS, PROGRAMS // across))), tall) * tall
    parts = triton.cdiv(rows, chunk)
    return rows, channels, chunk, parts, parts * across


def _tiles(rows: int, channels: int) -> tuple[int]:
    """Programs of a pass over a tensor."""
    return (triton.cdiv(rows, PASS_TILE[0]) * triton.cdiv(channels, PASS_TILE[1]),)


def pitch_of(maps: Tensor) -> int | None:
    """Numbers from one cell to the next in memory, where channels lie side by side and cells at equal distances."""
    _, _, height, width = maps.shape
    pitch = maps.stride(3)
    fits = maps.stride() == (height * width * pitch, 1, width * pitch, pitch)
    return pitch if fits and len(maps) * height * width * pitch < 2**31 else None


def forward(x: Tensor, norm: Any, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
    """The norm's output clamped to low .. high, and each channel's mean and 1 / deviation; running statistics move.

    x: [B, C, H, W] in channels-last memory. norm: a batch norm with weight, bias, running statistics and momentum.
    """
    rows, channels, chunk, parts, programs = _parted(x)
    means, squares = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    mean, rate = x.new_empty(2, channels, dtype=torch.float32).unbind()
    y = torch.empty_like(x)
    *tile, warps = SUM_TILE
    _moments[(programs,)](
        *(x, means, squares, tickets_of(norm, x), norm.running_mean, norm.running_var, norm.num_batches_tracked),
        *(mean, rate, rows, channels, chunk, parts, norm.momentum, norm.eps),
        *(FEW_PARTS if parts <= FEW_PARTS else PARTS, *tile, STAGES),
        num_warps=warps,
    )
    *tile, warps = PASS_TILE
    given = (x, y, mean, rate, norm.weight, norm.bias, rows, channels, low, high)
    _apply[_tiles(rows, channels)](*given, *tile, num_warps=warps)
    return y, mean, rate


def backward(
    x: Tensor, dy: Tensor, norm: Any, known: tuple[Tensor, Tensor, Tensor, Tensor], low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias.

    x: in channels-last memory; dy: as well, or some channels of such a map. known: what the forward pass had: mean,
    1 / deviation, weight and bias.
    """
    rows, channels, chunk, parts, programs = _parted(x)
    pitch = pitch_of(dy)
    if pitch is None:
        dy, pitch = dy.contiguous(memory_format=torch.channels_last), channels
    sums, products = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    dweight, dbias = x.new_empty(2, channels, dtype=torch.float32).unbind()
    dx = torch.empty_like(x)
    *tile, warps = SUM_TILE
    _products[(programs,)](
        *(x, dy, pitch, *known, sums, products, tickets_of(norm, x), dbias, dweight),
        *(rows, channels, chunk, parts, low, high),
        *(FEW_PARTS if parts <= FEW_PARTS else PARTS, *tile, STAGES),
        num_warps=warps,
    )
    *tile, warps = PASS_TILE
    given = (x, dy, pitch, dx, *known, dweight, dbias, rows, channels, low, high)
    _back[_tiles(rows, channels)](*given, *tile, num_warps=warps)
    return dx, dweight, dbias
