# ruff: noqa: N803 (Triton's constants are written large)
# mypy: disable-error-code="import-untyped, no-untyped-def, untyped-decorator"
"""A Triton kernel that casts many float32 tensors to bfloat16 at once, which it finds by a table of their addresses.

`casts` is what calls it, and torch's copying is its twin.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK, WARPS = 2048, 4  # numbers of a program, warps that work on them
COLUMNS = 3  # source, target, numbers


@triton.jit
def _cast(table, C: tl.constexpr, N: tl.constexpr):
    """One row of the table [rows, C]: up to N numbers."""
    row = table + tl.program_id(0) * C
    source = tl.multiple_of(tl.load(row).to(tl.pointer_type(tl.float32)), 16)
    target = tl.multiple_of(tl.load(row + 1).to(tl.pointer_type(tl.bfloat16)), 16)
    numbers = tl.load(row + 2).to(tl.int32)
    whole = numbers // 8 * 8  # those in whole vectors of 16 bytes: a mask that may end anywhere has each loaded alone
    place = tl.arange(0, N)
    tl.store(target + place, tl.load(source + place, place < whole, 0.0).to(tl.bfloat16), place < whole)
    if whole < numbers:
        rest = whole + tl.arange(0, 8)
        tl.store(target + rest, tl.load(source + rest, rest < numbers, 0.0).to(tl.bfloat16), rest < numbers)


def cast(table: Tensor) -> None:
    """Write what the table's sources hold into its targets."""
    with torch.cuda.device_of(table):  # on which Triton launches
        _cast[(len(table),)](table, COLUMNS, CHUNK, num_warps=WARPS)
