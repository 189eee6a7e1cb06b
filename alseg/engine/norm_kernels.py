# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of a batch norm in training with the activation after it, on [rows, channels] in memory.

Forward and backward pass each: sums of parts of the rows, their sum, and one pass over the tensor. No atomics: the
same input gives the same bits. `norms` is what calls them, and torch's own operators are their twin.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 128, 32  # of a tile, which a program looks at at a time
FEW = 16  # channels of a program that adds up
PARTS = 256  # of the rows at most
VARIED = ("rows", "chunk", "parts")  # numbers for which nothing is compiled anew: that takes a second a kernel


@triton.jit(do_not_specialize=VARIED)
def _moments(x, means, squares, rows, channels, chunk, BR: tl.constexpr, BC: tl.constexpr):
    """Of each part of the rows: the mean, and the sum of squared distances from it.

    Summed of the distances from the part's first row, which keeps the digits where a mean is far from 0, and across
    threads at the end alone.
    """
    part, column = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    start = part * chunk
    stop = tl.minimum(start + chunk, rows)
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
    tl.store(means + part * channels + column, origin + gap, here)
    tl.store(squares + part * channels + column, tl.maximum(tl.sum(square, 0) - gap * gap * count, 0.0), here)


@triton.jit(do_not_specialize=VARIED)
def _statistics(
    means, squares, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum, eps,
    ALL: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / deviation of each channel from the parts'; the running ones are moved, the batch is counted."""
    part, column = tl.arange(0, ALL), tl.program_id(0) * BC + tl.arange(0, BC)
    inside = (part < parts)[:, None] & (column < channels)[None, :]
    place = part[:, None] * channels + column[None, :]
    count = tl.where(part < parts, tl.minimum(rows - part * chunk, chunk), 0).to(tl.float32)[:, None]
    some = tl.load(means + place, inside, 0.0)
    centre = tl.sum(some * count, 0) / rows
    apart = tl.where(inside, some - centre[None, :], 0.0)
    square = tl.sum(tl.load(squares + place, inside, 0.0) + apart * apart * count, 0)
    here = column < channels
    tl.store(mean + column, centre, here)
    tl.store(rate + column, 1.0 / tl.sqrt(square / rows + eps), here)
    before = tl.load(running_mean + column, here, 0.0)
    tl.store(running_mean + column, before + momentum * (centre - before), here)
    before = tl.load(running_var + column, here, 0.0)
    unbiased = square / tl.maximum(rows - 1, 1)
    tl.store(running_var + column, before + momentum * (unbiased - before), here)
    if tl.program_id(0) == 0:
        tl.store(tracked, tl.load(tracked) + 1)


@triton.jit
def _normalised(value, mean, rate, weight, bias, KIND: tl.constexpr):
    """What the norm gives before its activation, rounded as torch's is."""
    return ((value.to(tl.float32) - mean) * (rate * weight) + bias).to(KIND).to(tl.float32)


@triton.jit(do_not_specialize=VARIED)
def _apply(x, y, mean, rate, weight, bias, rows, channels, low, high, BR: tl.constexpr, BC: tl.constexpr):
    """The normalised and activated values."""
    line, column = tl.program_id(0) * BR + tl.arange(0, BR), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
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
    x, dy, mean, rate, weight, bias, sums, products, rows, channels, chunk, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Of each part of the rows: the gradients' sum, and that of their products with the normalised values."""
    part, column = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    start = part * chunk
    stop = tl.minimum(start + chunk, rows)
    total, product = tl.zeros([BR, BC], tl.float32), tl.zeros([BR, BC], tl.float32)
    for row in range(start, stop, BR):
        line = row + tl.arange(0, BR)
        inside = (line < stop)[:, None] & here[None, :]
        place = line[:, None] * channels + column[None, :]
        value, gradient = tl.load(x + place, inside, 0.0), tl.load(dy + place, inside, 0.0).to(tl.float32)
        gradient = _passed(gradient, _normalised(value, centre, by, scale, shift, value.dtype), low, high)
        total += gradient
        product += gradient * (value.to(tl.float32) - centre) * by
    tl.store(sums + part * channels + column, tl.sum(total, 0), here)
    tl.store(products + part * channels + column, tl.sum(product, 0), here)


@triton.jit(do_not_specialize=VARIED)
def _summed(sums, products, dbias, dweight, channels, parts, ALL: tl.constexpr, BC: tl.constexpr):
    """The gradients of weight and bias, from the parts'."""
    part, column = tl.arange(0, ALL), tl.program_id(0) * BC + tl.arange(0, BC)
    inside = (part < parts)[:, None] & (column < channels)[None, :]
    place = part[:, None] * channels + column[None, :]
    tl.store(dbias + column, tl.sum(tl.load(sums + place, inside, 0.0), 0), column < channels)
    tl.store(dweight + column, tl.sum(tl.load(products + place, inside, 0.0), 0), column < channels)


@triton.jit(do_not_specialize=VARIED)
def _back(
    x, dy, dx, mean, rate, weight, bias, dweight, dbias, rows, channels, low, high,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of the input."""
    line, column = tl.program_id(0) * BR + tl.arange(0, BR), tl.program_id(1) * BC + tl.arange(0, BC)
    here = column < channels
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    total, product = tl.load(dbias + column, here, 0.0)[None, :], tl.load(dweight + column, here, 0.0)[None, :]
    value, gradient = tl.load(x + place, inside, 0.0), tl.load(dy + place, inside, 0.0).to(tl.float32)
    gradient = _passed(gradient, _normalised(value, centre, by, scale, shift, value.dtype), low, high)
    unit = (value.to(tl.float32) - centre) * by
    tl.store(dx + place, (gradient - (total + unit * product) / rows) * (scale * by), inside)


def _plan(x: Tensor) -> tuple[int, int, int, int]:
    """Rows and channels of a channels-last tensor, rows of a part, parts."""
    channels = x.shape[1]
    rows = x.numel() // channels
    wanted = max(1, min(PARTS, 512 // triton.cdiv(channels, COLUMNS)))
    chunk = triton.cdiv(triton.cdiv(rows, wanted), ROWS) * ROWS
    return rows, channels, chunk, triton.cdiv(rows, chunk)


def forward(x: Tensor, norm: Any, low: float, high: float) -> tuple[Tensor, Tensor, Tensor]:
    """The norm's output clamped to low .. high, and each channel's mean and 1 / deviation; running statistics move.

    x: [B, C, H, W] in channels-last memory. norm: a batch norm with weight, bias, running statistics and momentum.
    """
    rows, channels, chunk, parts = _plan(x)
    means, squares = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    mean, rate = x.new_empty(2, channels, dtype=torch.float32).unbind()
    y = torch.empty_like(x)
    across = triton.cdiv(channels, COLUMNS)
    _moments[(parts, across)](x, means, squares, rows, channels, chunk, ROWS, COLUMNS)
    _statistics[(triton.cdiv(channels, FEW),)](
        *(means, squares, norm.running_mean, norm.running_var, norm.num_batches_tracked, mean, rate),
        *(rows, channels, chunk, parts, norm.momentum, norm.eps, PARTS, FEW),
    )
    grid = (triton.cdiv(rows, ROWS), across)
    _apply[grid](x, y, mean, rate, norm.weight, norm.bias, rows, channels, low, high, ROWS, COLUMNS)
    return y, mean, rate


def backward(
    x: Tensor, dy: Tensor, mean: Tensor, rate: Tensor, weight: Tensor, bias: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias; x and dy in channels-last memory."""
    rows, channels, chunk, parts = _plan(x)
    sums, products = x.new_empty(2, parts, channels, dtype=torch.float32).unbind()
    dweight, dbias = torch.empty_like(weight), torch.empty_like(bias)
    dx = torch.empty_like(x)
    across, known = triton.cdiv(channels, COLUMNS), (mean, rate, weight, bias)
    _products[(parts, across)](x, dy, *known, sums, products, rows, channels, chunk, low, high, ROWS, COLUMNS)
    _summed[(triton.cdiv(channels, FEW),)](sums, products, dbias, dweight, channels, parts, PARTS, FEW)
    grid = (triton.cdiv(rows, ROWS), across)
    _back[grid](x, dy, dx, *known, dweight, dbias, rows, channels, low, high, ROWS, COLUMNS)
    return dx, dweight, dbias
