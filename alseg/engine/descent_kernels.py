# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""A Triton kernel of Adam's step over many tensors at once, which it finds by a table of their addresses.

`descent` is what calls it, and torch's own fused step is its twin.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# float32 numbers of a program, and warps that work on them: 16 numbers a thread are four loads of 16 bytes a tensor
CHUNK, WARPS = 2048, 4
COLUMNS = 6  # parameter, gradient, exp_avg, exp_avg_sq, numbers, step


@triton.jit
def _moved(
    parameters, gradients, means, squares, place, inside, decay, mean_rate, square_rate, size, scale, eps,
):  # fmt: skip
    """Adam's step at these places: both means move by their rates, the parameter by `size`."""
    parameter = tl.load(parameters + place, inside, 0.0)
    gradient = tl.load(gradients + place, inside, 0.0) + decay * parameter
    mean, square = tl.load(means + place, inside, 0.0), tl.load(squares + place, inside, 0.0)
    mean += mean_rate * (gradient - mean)
    square += square_rate * (gradient * gradient - square)
    tl.store(means + place, mean, inside)
    tl.store(squares + place, square, inside)
    # as torch's are rounded; plainly Triton's are approximate on a GPU
    change = tl.div_rn(size * mean, tl.sqrt_rn(square) * scale + eps)
    tl.store(parameters + place, parameter - change, inside)


@triton.jit
def _adam(
    table, count, decay, mean_rate, square_rate, size, scale, eps, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """The step of one row of the table [rows, C]: up to N numbers of a tensor, and its count of steps if it has one."""
    row = table + tl.program_id(0) * C
    parameters = tl.multiple_of(tl.load(row).to(tl.pointer_type(tl.float32)), 16)
    gradients = tl.multiple_of(tl.load(row + 1).to(tl.pointer_type(tl.float32)), 16)
    means = tl.multiple_of(tl.load(row + 2).to(tl.pointer_type(tl.float32)), 16)
    squares = tl.multiple_of(tl.load(row + 3).to(tl.pointer_type(tl.float32)), 16)
    numbers, step = tl.load(row + 4).to(tl.int32), tl.load(row + 5)
    whole = numbers // 4 * 4  # those in whole vectors: a mask that may end anywhere has each number loaded alone
    place = tl.arange(0, N)
    _moved(
        parameters, gradients, means, squares, place, place < whole,
        decay, mean_rate, square_rate, size, scale, eps,
    )  # fmt: skip
    if whole < numbers:
        rest = whole + tl.arange(0, 4)
        _moved(
            parameters, gradients, means, squares, rest, rest < numbers,
            decay, mean_rate, square_rate, size, scale, eps,
        )  # fmt: skip
    if step != 0:
        tl.store(step.to(tl.pointer_type(tl.float32)), count)


def adam(table: Tensor, count: int, group: dict[str, Any], chunk: int = CHUNK, warps: int = WARPS) -> None:
    """Step `count` (from 1 on) of a parameter group whose tensors the table has, in chunks of so many numbers."""
    first, second = group["betas"]
    # in Python's float64: Triton passes them in float32, where 1 - 0.999 has four digits
    size = group["lr"] / (1 - first**count)
    scale = (1 - second**count) ** -0.5
    rates = (1 - first, 1 - second)
    with torch.cuda.device_of(table):  # on which Triton launches
        _adam[(len(table),)](
            *(table, float(count), float(group["weight_decay"]), *rates, float(size), scale, float(group["eps"])),
            *(COLUMNS, chunk),
            num_warps=warps,
        )
