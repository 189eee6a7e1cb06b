# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of a batch norm in training with the activation after it, on [rows, channels] in memory.

Forward and backward pass each take one kernel where there are few rows, whose programs see all rows of a few
channels. Else there are two: sums of parts of the rows, added up by the program that ends last, and one pass over the
tensor. What is added is added in the same order each time: the same input gives the same bits. `norms` is what calls
them, and torch's own operators are their twin.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

FEW_ROWS = 4096  # up to which a program sees all of them
FEW_TILE = (512, 16, 8)  # rows and columns that it looks at at a time, and its warps
SUM_TILE = (256, 32, 8)  # those of the programs that sum parts of the rows
PASS_TILE = (128, 32, 4)  # those of the pass over the tensor
PROGRAMS, PARTS = 528, 256  # that sum, and parts of the rows at most
VARIED = ("rows", "chunk", "parts")  # numbers for which nothing is compiled anew: that takes a second a kernel


@triton.jit
def _summed_apart(x, start, stop, channels, column, here, BR: tl.constexpr, BC: tl.constexpr):
    """Of some rows: their mean, and the sum of squared distances from it.

    Summed of the distances from the first row, which keeps the digits where a mean is far from 0, and across threads
    at the end alone.
    """
    origin = tl.load(x + start * channels + column, here, 0.0).to(tl.float32)
    total, square = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for row in range(start, stop, BR):
        line = row + tl.arange(0, BR)
        inside = (line < stop)[:, None] & here[None, :]
        value = tl.load(x + line[:, None] * channels + column[None, :], inside, 0.0).to(tl.float32)
        apart = tl.where(inside, value - origin[None, :], 0.0)
        total += apart
        square += apart * apart
    count = (stop - start).to(tl.float32)
    gap = tl.sum(total, 0) / count
    return origin + gap, tl.maximum(tl.sum(square, 0) - gap * gap * count, 0.0)


@triton.jit
def _tracked(
    centre, square, running_mean, running_var, tracked, mean, rate, rows, momentum, eps, column, here
):  # fmt: skip
    """Keep mean and 1 / deviation, and move the running ones; the batch is counted. 1 / deviation."""
    by = 1.0 / tl.sqrt(square / rows + eps)
    tl.store(mean + column, centre, here)
    tl.store(rate + column, by, here)
    before = tl.load(running_mean + column, here, 0.0)
    tl.store(running_mean + column, before + momentum * (centre - before), here)
    before = tl.load(running_var + column, here, 0.0)
    unbiased = square / tl.maximum(rows - 1, 1)
    tl.store(running_var + column, before + momentum * (unbiased - before), here)
    if tl.program_id(1) == 0:
        tl.store(tracked, tl.load(tracked) + 1)
    return by


@triton.jit
def _normalised(value, mean, rate, weight, bias, KIND: tl.constexpr):
    """What the norm gives before its activation, rounded as torch's is."""
    return ((value.to(tl.float32) - mean) * (rate * weight) + bias).to(KIND).to(tl.float32)


@triton.jit
def _activated(x, y, place, inside, mean, rate, weight, bias, low, high):
    """Write the normalised and activated values of some places."""
    value = tl.load(x + place, inside, 0.0)
    out = _normalised(value, mean[None, :], rate[None, :], weight[None, :], bias[None, :], value.dtype)
    out = tl.where(out < low, low, out)  # which lets NaN pass
    out = tl.where(out > high, high, out)
    tl.store(y + place, out, inside)


@triton.jit
def _ended_last(tickets):
    """Whether all others that take tickets of this column of programs have written what they write."""
    tl.debug_barrier()
    taken = tl.atomic_add(tickets + tl.program_id(1), 1, sem="acq_rel")
    last = taken == tl.num_programs(0) - 1
    if last:
        tl.store(tickets + tl.program_id(1), 0)  # for the next time
    return last


@triton.jit(do_not_specialize=VARIED)
def _moments(
    x, means, squares, tickets, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, momentum, eps,
    ALL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Each channel's mean and 1 / deviation, from those of parts of the rows."""
    part, column = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    start = part * chunk
    centre, square = _summed_apart(x, start, tl.minimum(start + chunk, rows), channels, column, here, BR, BC)
    tl.store(means + part * channels + column, centre, here)
    tl.store(squares + part * channels + column, square, here)
    if _ended_last(tickets):
        parts = tl.num_programs(0)
        each = tl.arange(0, ALL)
        inside = (each < parts)[:, None] & here[None, :]
        place = each[:, None] * channels + column[None, :]
        count = tl.where(each < parts, tl.minimum(rows - each * chunk, chunk), 0).to(tl.float32)[:, None]
        some = tl.load(means + place, inside, 0.0, cache_modifier=".cg")
        squared = tl.load(squares + place, inside, 0.0, cache_modifier=".cg")
        centre = tl.sum(some * count, 0) / rows
        apart = tl.where(inside, some - centre[None, :], 0.0)
        square = tl.sum(squared + apart * apart * count, 0)
        _tracked(centre, square, running_mean, running_var, tracked, mean, rate, rows, momentum, eps, column, here)


@triton.jit(do_not_specialize=VARIED)
def _apply(x, y, mean, rate, weight, bias, rows, channels, low, high, BR: tl.constexpr, BC: tl.constexpr):
    """The normalised and activated values."""
    line, column = tl.program_id(0) * BR + tl.arange(0, BR), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0), tl.load(rate + column, here, 0.0)
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    inside = (line < rows)[:, None] & here[None, :]
    _activated(x, y, line[:, None] * channels + column[None, :], inside, centre, by, scale, shift, low, high)


@triton.jit(do_not_specialize=VARIED)
def _all_at_once(
    x, y, running_mean, running_var, tracked, mean, rate, weight, bias, rows, channels, momentum, eps, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """`_moments` and `_apply` by programs that see all rows."""
    column = tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    centre, square = _summed_apart(x, 0, rows, channels, column, here, BR, BC)
    by = _tracked(centre, square, running_mean, running_var, tracked, mean, rate, rows, momentum, eps, column, here)
    for row in range(0, rows, BR):
        line = row + tl.arange(0, BR)
        inside = (line < rows)[:, None] & here[None, :]
        _activated(x, y, line[:, None] * channels + column[None, :], inside, centre, by, scale, shift, low, high)


@triton.jit
def _passed(gradient, out, low, high):
    """The gradient before the activation, which clamps to low .. high."""
    return tl.where((out > low) & (out < high), gradient, 0.0)


@triton.jit
def _before(x, dy, place, inside, mean, rate, weight, bias, low, high):
    """Of some places the gradient before the activation, and the values that the norm scales."""
    value, gradient = tl.load(x + place, inside, 0.0), tl.load(dy + place, inside, 0.0).to(tl.float32)
    out = _normalised(value, mean[None, :], rate[None, :], weight[None, :], bias[None, :], value.dtype)
    return _passed(gradient, out, low, high), (value.to(tl.float32) - mean[None, :]) * rate[None, :]


@triton.jit
def _summed_products(
    x, dy, start, stop, channels, column, here, mean, rate, weight, bias, low, high, BR: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """Of some rows: the gradients' sum, and that of their products with the normalised values."""
    total, product = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for row in range(start, stop, BR):
        line = row + tl.arange(0, BR)
        inside = (line < stop)[:, None] & here[None, :]
        place = line[:, None] * channels + column[None, :]
        gradient, unit = _before(x, dy, place, inside, mean, rate, weight, bias, low, high)
        total += gradient
        product += gradient * unit
    return tl.sum(total, 0), tl.sum(product, 0)


@triton.jit(do_not_specialize=VARIED)
def _products(
    x, dy, mean, rate, weight, bias, sums, products, tickets, dbias, dweight, rows, channels, chunk, low, high,
    ALL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradients of weight and bias, from those of parts of the rows."""
    part, column = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0), tl.load(rate + column, here, 0.0)
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    start = part * chunk
    stop = tl.minimum(start + chunk, rows)
    total, product = _summed_products(
        x, dy, start, stop, channels, column, here, centre, by, scale, shift, low, high, BR, BC
    )
    tl.store(sums + part * channels + column, total, here)
    tl.store(products + part * channels + column, product, here)
    if _ended_last(tickets):
        each = tl.arange(0, ALL)
        inside = (each < tl.num_programs(0))[:, None] & here[None, :]
        place = each[:, None] * channels + column[None, :]
        tl.store(dbias + column, tl.sum(tl.load(sums + place, inside, 0.0, cache_modifier=".cg"), 0), here)
        tl.store(dweight + column, tl.sum(tl.load(products + place, inside, 0.0, cache_modifier=".cg"), 0), here)


@triton.jit
def _taken_back(
    x, dy, dx, place, inside, mean, rate, weight, bias, total, product, rows, low, high
):  # fmt: skip
    """Write the gradient of the input at some places."""
    gradient, unit = _before(x, dy, place, inside, mean, rate, weight, bias, low, high)
    tl.store(
        dx + place, (gradient - (total[None, :] + unit * product[None, :]) / rows) * (weight * rate)[None, :], inside
    )


@triton.jit(do_not_specialize=VARIED)
def _back(
    x, dy, dx, mean, rate, weight, bias, dweight, dbias, rows, channels, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of the input."""
    line, column = tl.program_id(0) * BR + tl.arange(0, BR), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0), tl.load(rate + column, here, 0.0)
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    total, product = tl.load(dbias + column, here, 0.0), tl.load(dweight + column, here, 0.0)
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    _taken_back(x, dy, dx, place, inside, centre, by, scale, shift, total, product, rows, low, high)


@triton.jit(do_not_specialize=VARIED)
def _all_back_at_once(
    x, dy, dx, mean, rate, weight, bias, dweight, dbias, rows, channels, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """`_products` and `_back` by programs that see all rows."""
    column = tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0), tl.load(rate + column, here, 0.0)
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    total, product = _summed_products(
        x, dy, 0, rows, channels, column, here, centre, by, scale, shift, low, high, BR, BC
    )
    tl.store(dbias + column, total, here)
    tl.store(dweight + column, product, here)
    for row in range(0, rows, BR):
        line = row + tl.arange(0, BR)
        inside = (line < rows)[:, None] & here[None, :]
        place = line[:, None] * channels + column[None, :]
        _taken_back(x, dy, dx, place, inside, centre, by, scale, shift, total, product, rows, low, high)


_tickets: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def tickets_of(norm: Any, x: Tensor) -> Tensor:
    """Zeros, one for each column of programs of a norm's kernels, which leave them so."""
    found = _tickets.get(norm)
    if found is None or found.device != x.device:
        found = _tickets[norm] = torch.zeros(-(-x.shape[1] // SUM_TILE[1]), dtype=torch.int32, device=x.device)
    return found


def _parted(rows: int, channels: int) -> tuple[int, int]:
    """Rows of a part, and parts."""
    wanted = max(1, min(PARTS, PROGRAMS // triton.cdiv(channels, SUM_TILE[1])))
    chunk = triton.cdiv(triton.cdiv(rows, wanted), SUM_TILE[0]) * SUM_TILE[0]
    return chunk, triton.cdiv(rows, chunk)


def forward(x: Tensor, norm: Any, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
    """The norm's output clamped to low .. high, and each channel's mean and 1 / deviation; running statistics move.

    x: [B, C, H, W] in channels-last memory. norm: a batch norm with weight, bias, running statistics and momentum.
    """
    channels = x.shape[1]
    rows = x.numel() // channels
    mean, rate = x.new_empty(2, channels, dtype=torch.float32).unbind()
    y = torch.empty_like(x)
    kept = (norm.running_mean, norm.running_var, norm.num_batches_tracked, mean, rate)
    if rows <= FEW_ROWS:
        tall, wide, warps = FEW_TILE
        _all_at_once[(1, triton.cdiv(channels, wide))](
            *(x, y, *kept, norm.weight, norm.bias, rows, channels, norm.momentum, norm.eps, low, high, tall, wide),
            num_warps=warps,
        )
        return y, mean, rate
    chunk, parts = _parted(rows, channels)
    means, squares = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    tall, wide, warps = SUM_TILE
    _moments[(parts, triton.cdiv(channels, wide))](
        *(x, means, squares, tickets_of(norm, x), *kept, rows, channels, chunk, norm.momentum, norm.eps),
        *(PARTS, tall, wide),
        num_warps=warps,
    )
    tall, wide, warps = PASS_TILE
    _apply[(triton.cdiv(rows, tall), triton.cdiv(channels, wide))](
        *(x, y, mean, rate, norm.weight, norm.bias, rows, channels, low, high, tall, wide), num_warps=warps
    )
    return y, mean, rate


def backward(
    x: Tensor, dy: Tensor, norm: Any, known: tuple[Tensor, Tensor, Tensor, Tensor], low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias; x and dy in channels-last memory.

    known: what the forward pass had: mean, 1 / deviation, weight and bias.
    """
    channels = x.shape[1]
    rows = x.numel() // channels
    dweight, dbias = x.new_empty(2, channels, dtype=torch.float32).unbind()
    dx = torch.empty_like(x)
    if rows <= FEW_ROWS:
        tall, wide, warps = FEW_TILE
        _all_back_at_once[(1, triton.cdiv(channels, wide))](
            *(x, dy, dx, *known, dweight, dbias, rows, channels, low, high, tall, wide), num_warps=warps
        )
        return dx, dweight, dbias
    chunk, parts = _parted(rows, channels)
    sums, products = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    tall, wide, warps = SUM_TILE
    _products[(parts, triton.cdiv(channels, wide))](
        *(x, dy, *known, sums, products, tickets_of(norm, x), dbias, dweight, rows, channels, chunk, low, high),
        *(PARTS, tall, wide),
        num_warps=warps,
    )
    tall, wide, warps = PASS_TILE
    _back[(triton.cdiv(rows, tall), triton.cdiv(channels, wide))](
        *(x, dy, dx, *known, dweight, dbias, rows, channels, low, high, tall, wide), num_warps=warps
    )
    return dx, dweight, dbias
