# ruff: noqa: N803, SIM102 (Triton's constants are written large, and decide what is compiled)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""Triton kernels of a batch norm in training with the activation after it, on [rows, channels] in memory.

Forward and backward pass take two each: sums of parts of the rows, and one pass over the tensor. Where there are few
parts, each program of the pass adds them up; else the program does that sums last. What is added is added in the same
order each time: the same input gives the same bits. `norms` is what calls them, and torch's own operators are their
twin.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor

SUM_TILE = (128, 16, 4)  # rows and columns of what a program sums at a time, and its warps
STAGES = 3  # for how many such tiles' numbers it asks ahead, where it sums many
PASS_TILE = (64, 32, 4)  # of what a program of the pass over the tensor takes
FEW_TILE = (128, 32, 4)  # the same where it adds up the parts as well
PROGRAMS, PARTS = 528, 256  # that sum, and parts of the rows, at most
# rows and channels up to which there are few parts, and how many these are at most
FEW_ROWS, FEW_CHANNELS, FEW_PARTS = 12288, 512, 32
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


@triton.jit
def _parts(channels, column, parts, ALL: tl.constexpr):
    """Where the parts' sums of some columns lie, and which there are."""
    each = tl.arange(0, ALL)
    among = (each < parts)[:, None] & (column < channels)[None, :]
    return each, each[:, None] * channels + column[None, :], among


@triton.jit
def _settled(
    means, squares, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum, eps, block,
    column, keeps, ALL: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / deviation of some columns from the parts'; one program keeps them and moves the running ones."""
    here = column < channels
    each, place, among = _parts(channels, column, parts, ALL)
    counts = tl.where(each < parts, tl.minimum(rows - each * chunk, chunk), 0).to(tl.float32)[:, None]
    some = tl.load(means + place, among, 0.0, cache_modifier=".cg")
    squared = tl.load(squares + place, among, 0.0, cache_modifier=".cg")
    centre = tl.sum(some * counts, 0) / rows
    apart = tl.where(among, some - centre[None, :], 0.0)
    whole = tl.sum(squared + apart * apart * counts, 0)
    by = 1.0 / tl.sqrt(whole / rows + eps)
    if keeps:
        tl.store(mean + column, centre, here)
        tl.store(rate + column, by, here)
        before = tl.load(running_mean + column, here, 0.0)
        tl.store(running_mean + column, before + momentum * (centre - before), here)
        before = tl.load(running_var + column, here, 0.0)
        unbiased = whole / tl.maximum(rows - 1, 1)
        tl.store(running_var + column, before + momentum * (unbiased - before), here)
        if block == 0:
            tl.store(tracked, tl.load(tracked) + 1)  # the batch is counted once
    return centre, by


@triton.jit(do_not_specialize=VARIED)
def _moments(
    x, means, squares, tickets, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum,
    eps, ALL: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of each part: the mean, and the sum of squared distances from it; with ALL also the whole's.

    Both are summed of the distances from the part's first row, which keeps the digits where a mean is far from 0, and
    across threads at the end alone.
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
    if ALL > 0:
        if _ended_last(tickets, block, parts):
            _settled(
                means, squares, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum,
                eps, block, column, True, ALL,
            )  # fmt: skip


@triton.jit(do_not_specialize=VARIED)
def _apply(
    x, y, means, squares, running_mean, running_var, tracked, mean, rate, weight, bias, rows, channels, chunk, parts,
    momentum, eps, low, high, FEW: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The normalised and activated values; with FEW the parts are added up here."""
    tile, block, column = _place(channels, BC)
    line, here = tile * BR + tl.arange(0, BR), column < channels
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    value = tl.load(x + place, inside, 0.0)
    scale, shift = tl.load(weight + column, here, 0.0), tl.load(bias + column, here, 0.0)
    if FEW > 0:
        centre, by = _settled(
            means, squares, running_mean, running_var, tracked, mean, rate, rows, channels, chunk, parts, momentum,
            eps, block, column, tile == 0, FEW,
        )  # fmt: skip
    else:
        centre, by = tl.load(mean + column, here, 0.0), tl.load(rate + column, here, 0.0)
    out = _normalised(value, centre[None, :], by[None, :], scale[None, :], shift[None, :], value.dtype)
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
    if ALL > 0:
        if _ended_last(tickets, block, parts):
            _added(sums, products, dbias, dweight, channels, parts, column, True, ALL)


@triton.jit
def _added(sums, products, dbias, dweight, channels, parts, column, keeps, ALL: tl.constexpr):
    """The gradients of bias and weight of some columns from the parts' sums; one program keeps them."""
    _, place, among = _parts(channels, column, parts, ALL)
    total = tl.sum(tl.load(sums + place, among, 0.0, cache_modifier=".cg"), 0)
    product = tl.sum(tl.load(products + place, among, 0.0, cache_modifier=".cg"), 0)
    if keeps:
        tl.store(dbias + column, total, column < channels)
        tl.store(dweight + column, product, column < channels)
    return total, product


@triton.jit(do_not_specialize=VARIED)
def _back(
    x, dy, pitch, dx, mean, rate, weight, bias, sums, products, dbias, dweight, rows, channels, parts, low, high,
    FEW: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient of the input; with FEW the parts are added up here."""
    tile, _, column = _place(channels, BC)
    line, here = tile * BR + tl.arange(0, BR), column < channels
    inside = (line < rows)[:, None] & here[None, :]
    place = line[:, None] * channels + column[None, :]
    value = tl.load(x + place, inside, 0.0)
    gradient = tl.load(dy + line[:, None] * pitch + column[None, :], inside, 0.0).to(tl.float32)
    centre, by = tl.load(mean + column, here, 0.0)[None, :], tl.load(rate + column, here, 0.0)[None, :]
    scale, shift = tl.load(weight + column, here, 0.0)[None, :], tl.load(bias + column, here, 0.0)[None, :]
    if FEW > 0:
        total, product = _added(sums, products, dbias, dweight, channels, parts, column, tile == 0, FEW)
    else:
        total, product = tl.load(dbias + column, here, 0.0), tl.load(dweight + column, here, 0.0)
    gradient = _passed(gradient, _normalised(value, centre, by, scale, shift, value.dtype), low, high)
    unit = (value.to(tl.float32) - centre) * by
    tl.store(dx + place, (gradient - (total[None, :] + unit * product[None, :]) / rows) * (scale * by), inside)


_tickets: WeakKeyDictionary[Any, Tensor] = WeakKeyDictionary()


def tickets_of(norm: Any, x: Tensor) -> Tensor:
    """Zeros, one for the programs of each block of a norm's columns, which leave them so."""
    found = _tickets.get(norm)
    if found is None or found.device != x.device:
        found = _tickets[norm] = torch.zeros(-(-x.shape[1] // SUM_TILE[1]), dtype=torch.int32, device=x.device)
    return found


class Plan(NamedTuple):
    """How a tensor is summed, in parts, and passed over; of `every` and `few` one is 0.

    every, few: how many parts the program adds up that sums last, or each of the pass. stages: tiles asked ahead.
    """

    rows: int
    channels: int
    chunk: int  # rows of a part
    parts: int
    every: int
    few: int
    stages: int

    @property
    def sums(self) -> tuple[int]:
        """Programs that sum."""
        return (self.parts * triton.cdiv(self.channels, SUM_TILE[1]),)

    @property
    def tile(self) -> tuple[int, int, int]:
        """Of the pass."""
        return FEW_TILE if self.few else PASS_TILE

    @property
    def tiles(self) -> tuple[int]:
        """Programs of the pass."""
        tall, wide, _ = self.tile
        return (triton.cdiv(self.rows, tall) * triton.cdiv(self.channels, wide),)


def planned(x: Tensor) -> Plan:
    """The plan for maps of this size."""
    channels = x.shape[1]
    rows, tall = x.numel() // channels, SUM_TILE[0]
    few = rows <= FEW_ROWS and channels <= FEW_CHANNELS
    most = FEW_PARTS if few else max(1, min(PARTS, PROGRAMS // triton.cdiv(channels, SUM_TILE[1])))
    chunk = triton.cdiv(triton.cdiv(rows, most), tall) * tall
    adding = (0, FEW_PARTS, 1) if few else (PARTS, 0, STAGES)
    return Plan(rows, channels, chunk, triton.cdiv(rows, chunk), *adding)


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
    plan = planned(x)
    means, squares = x.new_empty(2, plan.parts, plan.channels, dtype=torch.float32).unbind()
    mean, rate = x.new_empty(2, plan.channels, dtype=torch.float32).unbind()
    y = torch.empty_like(x)
    kept = (norm.running_mean, norm.running_var, norm.num_batches_tracked, mean, rate)
    sizes = (plan.rows, plan.channels, plan.chunk, plan.parts, norm.momentum, norm.eps)
    *tile, warps = SUM_TILE
    given = (x, means, squares, tickets_of(norm, x), *kept, *sizes)
    _moments[plan.sums](*given, plan.every, *tile, plan.stages, num_warps=warps)
    *tile, warps = plan.tile
    passed = (x, y, means, squares, *kept, norm.weight, norm.bias, *sizes, low, high)
    _apply[plan.tiles](*passed, plan.few, *tile, num_warps=warps)
    return y, mean, rate


def backward(
    x: Tensor, dy: Tensor, norm: Any, known: tuple[Tensor, Tensor, Tensor, Tensor], low: float, high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of input, weight and bias.

    x: in channels-last memory; dy: as well, or some channels of such a map. known: what the forward pass had: mean,
    1 / deviation, weight and bias.
    """
    plan, pitch = planned(x), pitch_of(dy)
    if pitch is None:
        dy, pitch = dy.contiguous(memory_format=torch.channels_last), plan.channels
    sums, products = x.new_empty(2, plan.parts, plan.channels, dtype=torch.float32).unbind()
    dweight, dbias = x.new_empty(2, plan.channels, dtype=torch.float32).unbind()
    dx = torch.empty_like(x)
    *tile, warps = SUM_TILE
    given = (x, dy, pitch, *known, sums, products, tickets_of(norm, x), dbias, dweight)
    sizes = (plan.rows, plan.channels, plan.chunk, plan.parts)
    _products[plan.sums](*given, *sizes, low, high, plan.every, *tile, plan.stages, num_warps=warps)
    *tile, warps = plan.tile
    passed = (x, dy, pitch, dx, *known, sums, products, dbias, dweight, plan.rows, plan.channels, plan.parts)
    _back[plan.tiles](*passed, low, high, plan.few, *tile, num_warps=warps)
    return dx, dweight, dbias
