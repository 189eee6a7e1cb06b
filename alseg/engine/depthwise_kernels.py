# ruff: noqa: N803, RUF005 (Triton's constants are written large, and its tuples are not unpacked)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator, assignment, var-annotated"
"""Triton kernels of a depthwise convolution with its gradients, for which cuDNN has slow ones.

Maps are [B, C, H, W] in channels-last memory, a weight is [C, 1, K, K]. A thread has eight channels of a block of
neighbours, DOWN x 2 cells `rate` apart, which see mostly the same cells; what it holds for a program's whole way are a
3x3 kernel's weights or their gradients; those of larger kernels do not fit, and their gradients are torch's. No
atomics: the same input gives the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alseg.engine.depthwise import Geometry

NUMBERS = 256  # of a tile that a warp looks at at a time: eight a thread, 16 bytes of bfloat16
# warps of a program, cells of a block down, and programs to be started: on an H200 these are the fastest or near it for
# the layers of a MobileNetV2 on 360 x 480 pixels. Fewer programs with more passes read the weights more rarely, more of
# them hide more of the memory's latency
CONVOLVE = {1: (2, 2, 680), 2: (4, 1, 340)}  # by the stride
BACK = (4, 2, 396)  # the gradient of the input by a stride of 2
WEIGH = {1: (1, 2, 1056), 2: (2, 2, 340)}
EACH = 2**31 - 1  # a grid's most: one pass each, where no weights are held over several
PARTS, FEW_PARTS = 512, 64  # of the blocks at most, whose gradients of the weight are added up at the end; often few
FEW = 16  # numbers that a program adds up
# numbers for which nothing is compiled anew: that takes a second a kernel
VARIED = (
    *("blocks", "high", "wide", "rows", "columns", "out_rows", "out_columns", "passes", "before"),
    *("origin", "sign", "parts"),
)


class Tiles(NamedTuple):
    """What a program looks at at a time, and how many programs there are to be."""

    blocks: int
    channels: int
    down: int  # cells of a block, of which there are two across
    warps: int
    programs: int


def tiles_of(channels: int, side: int, stride: int, *, back: bool = False, weighs: bool = False) -> Tiles:
    """Tiles for maps of so many channels and a kernel of side x side.

    back: for the gradient of the input by a stride of 2, whose blocks are 2 x 2. weighs: for that of a 3x3 weight.
    """
    across = 32 if -channels % 32 <= channels // 8 else 16  # a few in vain at most
    warps, down, programs = WEIGH[stride] if weighs else BACK if back else CONVOLVE[stride]
    if weighs:
        programs = min(programs, PARTS * triton.cdiv(channels, across))
    elif side > 3:
        warps, down, programs = 4, 2 if back else 1, EACH  # more cells would not fit a thread's registers
    return Tiles(NUMBERS * warps // across, across, down, warps, programs)


@triton.jit
def _cells(block, high, wide, rate, DOWN: tl.constexpr):
    """Image, row and column of the first cell of each block."""
    down, across = block // wide % high, block % wide
    down = down // rate * (DOWN * rate) + down % rate
    return block // wide // high, down, across // rate * (2 * rate) + across % rate


@triton.jit
def _loaded(maps, image, row, column, a, b, rate, rows, columns, channel, channels, inside):
    """In float32, cells of maps that are `a` and `b` times `rate` after row and column; zeros beyond the maps."""
    place = ((image * rows + row) * columns + column)[:, None] * channels + channel[None, :]
    row, column = row + a * rate, column + b * rate
    seen = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    seen = seen[:, None] & (channel < channels)[None, :]
    return tl.load(maps + (place + (a * columns + b) * rate * channels), seen, 0.0).to(tl.float32)


@triton.jit
def _total(
    total, n, x, weight, held, top, sign, image, row, column, rate, rows, columns, channel, channels, inside,
    FIRST: tl.constexpr, BACK: tl.constexpr, STRIDE: tl.constexpr, K: tl.constexpr, TALL: tl.constexpr,
):  # fmt: skip
    """What TALL rows of taps add to cell n of each block; the compiler loads once what several cells see."""
    for tap in tl.static_range(TALL * K):
        a = FIRST + n // 2 - tap // K if BACK else n // 2 * STRIDE + tap // K
        b = FIRST + n % 2 - tap % K if BACK else n % 2 * STRIDE + tap % K
        if not BACK:
            value = _loaded(x, image, row, column, a, b, rate, rows, columns, channel, channels, inside)
            total += value * _weights(weight, held, tap, top, sign, channel < channels, K, TALL)
        elif a % STRIDE == 0 and b % STRIDE == 0:
            a, b = a // STRIDE, b // STRIDE
            value = _loaded(x, image, row, column, a, b, rate, rows, columns, channel, channels, inside)
            total += value * _weights(weight, held, tap, top, sign, channel < channels, K, TALL)
    return total


@triton.jit
def _weights(weight, held, tap, top, sign, here, K: tl.constexpr, TALL: tl.constexpr):
    """A tap's weights, [1, channels]: those that are held, or of the rows from `top` on."""
    if TALL == K:
        by = held[tap]
    else:
        inside = here & (top + tap // K < K)
        by = tl.load(weight + (top * K + tap) * sign, inside, 0.0).to(tl.float32)[None, :]
    return by


@triton.jit(do_not_specialize=VARIED)
def _convolve(
    x, weight, y, blocks, high, wide, rows, columns, out_rows, out_columns, channels, passes, rate, before,
    origin, sign, FIRST: tl.constexpr, BACK: tl.constexpr, STRIDE: tl.constexpr, K: tl.constexpr, DOWN: tl.constexpr,
    TALL: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The convolution, or with BACK the gradient of its input.

    A block's first cell, by the stride, sees from `before` cells before it on; with BACK its tap FIRST sees that cell.
    The weight is read from `origin` on in steps of `sign`: all of it once, or for each block TALL rows at a time.
    """
    channels = channels // UNIT * UNIT
    channel = tl.program_id(1) * BC + tl.arange(0, BC)
    here = channel < channels
    weight += channel * (K * K) + origin
    held = ()
    for tap in tl.static_range(K * K if TALL == K else 0):
        held = held + (tl.load(weight + tap * sign, here, 0.0).to(tl.float32)[None, :],)
    for step in range(passes):
        block = (tl.program_id(0) * passes + step) * BP + tl.arange(0, BP)
        image, down, across = _cells(block, high, wide, rate, DOWN)
        row = (down // STRIDE if BACK else down * STRIDE) - before
        column = (across // STRIDE if BACK else across * STRIDE) - before
        totals = ()
        for _ in tl.static_range(DOWN * 2):
            totals = totals + (tl.zeros([BP, BC], tl.float32),)
        for top in range(0, K, TALL):
            grown = ()
            for n in tl.static_range(DOWN * 2):
                total = _total(
                    totals[n], n, x, weight, held, top, sign, image, row, column, rate, rows, columns,
                    channel, channels, block < blocks, FIRST, BACK, STRIDE, K, TALL,
                )  # fmt: skip
                grown = grown + (total,)
            totals = grown
            row += -rate if BACK else rate * TALL
        for n in tl.static_range(DOWN * 2):
            q, r, inside = down + n // 2 * rate, across + n % 2 * rate, block < blocks
            place = ((image * out_rows + q) * out_columns + r)[:, None] * channels + channel[None, :]
            inside = inside & (q < out_rows) & (r < out_columns)
            tl.store(y + place, totals[n], inside[:, None] & here[None, :])


@triton.jit(do_not_specialize=VARIED)
def _weigh(
    x, dy, sums, blocks, high, wide, rows, columns, out_rows, out_columns, channels, passes, rate, before,
    STRIDE: tl.constexpr, K: tl.constexpr, DOWN: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """The gradient of the weight over a part of the blocks: [parts, K * K, C]."""
    channels = channels // UNIT * UNIT
    part, channel = tl.program_id(0), tl.program_id(1) * BC + tl.arange(0, BC)
    totals = ()
    for _ in tl.static_range(K * K):
        totals = totals + (tl.zeros([BP, BC], tl.float32),)
    for step in range(passes):
        block = (part * passes + step) * BP + tl.arange(0, BP)
        image, down, across = _cells(block, high, wide, rate, DOWN)
        row, column, inside = down * STRIDE - before, across * STRIDE - before, block < blocks
        gradients = ()
        for n in tl.static_range(DOWN * 2):
            a, b = n // 2, n % 2
            value = _loaded(dy, image, down, across, a, b, rate, out_rows, out_columns, channel, channels, inside)
            gradients = gradients + (value,)
        grown = ()
        for tap in tl.static_range(K * K):
            total = totals[tap]
            for n in tl.static_range(DOWN * 2):  # the compiler loads once what several cells see
                a, b = n // 2 * STRIDE + tap // K, n % 2 * STRIDE + tap % K
                value = _loaded(x, image, row, column, a, b, rate, rows, columns, channel, channels, inside)
                total += value * gradients[n]
            grown = grown + (total,)
        totals = grown
    sums += part * (K * K) * channels + channel
    for tap in tl.static_range(K * K):
        tl.store(sums + tap * channels, tl.sum(totals[tap], 0), channel < channels)


@triton.jit(do_not_specialize=VARIED)
def _add(sums, dweight, channels, parts, K: tl.constexpr, ALL: tl.constexpr, BC: tl.constexpr, UNIT: tl.constexpr):
    """The gradient of the weight from that over each part."""
    channels = channels // UNIT * UNIT
    part, number = tl.arange(0, ALL), tl.program_id(0) * BC + tl.arange(0, BC)
    here = number < channels * (K * K)
    place = part[:, None] * (channels * (K * K)) + number[None, :]
    total = tl.sum(tl.load(sums + place, (part < parts)[:, None] & here[None, :], 0.0), 0)
    tl.store(dweight + number % channels * (K * K) + number // channels, total, here)


def _unit(channels: int) -> int:
    """By what the channels are known to be divisible, so that whole vectors are loaded."""
    return 8 if channels % 8 == 0 else 1


def _blocks(maps: Tensor, tiles: Tiles, rate: int) -> tuple[int, int, int]:
    """How many blocks cover the maps: in all, down and across an image."""
    rows, columns = maps.shape[2:]
    high = min(rows, triton.cdiv(rows, tiles.down * rate) * rate)
    wide = min(columns, triton.cdiv(columns, 2 * rate) * rate)
    return len(maps) * high * wide, high, wide


def _passes(blocks: int, channels: int, tiles: Tiles) -> tuple[int, int, int]:
    """Passes of a program; programs for the blocks and for the channels."""
    steps, across = triton.cdiv(blocks, tiles.blocks), triton.cdiv(channels, tiles.channels)
    passes = triton.cdiv(steps * across, tiles.programs)
    return passes, triton.cdiv(steps, passes), across


def convolved(x: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """[B, C, h, w] -> [B, C, *size]."""
    stride, padding, rate = geometry
    return _run(x, weight, stride, rate, padding, size, tiles_of(*_kind(weight), stride))


def input_gradient(dy: Tensor, weight: Tensor, geometry: Geometry, size: tuple[int, int]) -> Tensor:
    """The gradient of an input [B, C, *size]."""
    stride, padding, rate = geometry
    before, odd = divmod(rate * (weight.shape[-1] - 1) - padding, stride)
    first = weight.shape[-1] - 1 - odd
    if stride == 1:  # the convolution by the mirrored kernel
        return _run(dy, weight, 1, rate, before, size, tiles_of(*_kind(weight), 1), mirrored=True)
    return _run(dy, weight, stride, rate, before, size, tiles_of(*_kind(weight), stride, back=True), first=first)


def _kind(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight.shape[-1]


def _run(
    x: Tensor, weight: Tensor, stride: int, rate: int, before: int, size: tuple[int, int], tiles: Tiles,
    *, first: int | None = None, mirrored: bool = False,
) -> Tensor:  # fmt: skip
    channels, side = _kind(weight)
    y = torch.empty((len(x), channels, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    back = first is not None
    blocks, high, wide = _blocks(y, tiles, rate)
    passes, *grid = _passes(blocks, channels, tiles)
    _convolve[tuple(grid)](
        *(x, weight, y, blocks, high, wide, *x.shape[2:], *size, channels, passes, rate, before),
        *((side * side - 1, -1) if mirrored else (0, 1)),
        *(first or 0, back, stride, side, tiles.down, side if side == 3 else stride if back else 1),
        *(tiles.blocks, tiles.channels, _unit(channels)),
        num_warps=tiles.warps,
    )
    return y


def weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """A 3x3 weight's gradient, [C, 1, 3, 3]."""
    channels, side = _kind(weight)
    tiles, unit = tiles_of(channels, side, geometry.stride, weighs=True), _unit(channels)
    blocks, high, wide = _blocks(dy, tiles, geometry.rate)
    passes, parts, across = _passes(blocks, channels, tiles)
    sums = x.new_empty(parts, side * side, channels, dtype=torch.float32)
    dweight = torch.empty_like(weight)
    _weigh[(parts, across)](
        *(x, dy, sums, blocks, high, wide, *x.shape[2:], *dy.shape[2:], channels, passes, geometry.rate),
        *(geometry.padding, geometry.stride, side, tiles.down, tiles.blocks, tiles.channels, unit),
        num_warps=tiles.warps,
    )
    most = FEW_PARTS if parts <= FEW_PARTS else PARTS
    _add[(triton.cdiv(channels * side * side, FEW),)](sums, dweight, channels, parts, side, most, FEW, unit)
    return dweight
