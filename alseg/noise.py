"""Keyed randomness: uniform numbers that depend on what they are for, not on when they are drawn.

Each stream (seed, round, purpose, image key) is a SplitMix64 sequence (Steele, Lea and Flood, OOPSLA
2014) that starts at a BLAKE2b hash of the four; number i of a stream is a function of i alone. The same
integers come out on a CPU and on a GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def stream(seed: int, round: int, purpose: str, key: str = "") -> int:
    """The signed 64-bit start of a stream."""
    text = "\0".join((str(seed), str(round), purpose, key))
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def chance(seed: int, round: int, purpose: str, key: str) -> float:
    """One number in [0, 1) of its own, without torch."""
    return ((stream(seed, round, purpose, key) & (2**64 - 1)) >> 11) * 2.0**-53


def uniforms(starts: Sequence[int], count: int, device: torch.device | str = "cpu") -> Tensor:
    """The first `count` numbers of each stream: float64 [len(starts), count] in [0, 1)."""
    import torch

    start = torch.tensor(starts, dtype=torch.int64, device=device).unsqueeze(1)
    index = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    z = start + index * _signed(_GOLDEN)
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    z = z ^ _shifted(z, 31)
    return _shifted(z, 11).double() * 2.0**-53


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; int64's own keeps the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    return constant - (1 << 64)
