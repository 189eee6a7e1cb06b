"""How PixelPick turns a utility map into n pixels of an image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from functools import partial

import torch
from torch import Tensor

from alseg.ranking import highest, pick
from alseg.values import PoolBatch, Selection


def topk(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
    """The n candidates of highest utility."""
    return pick(utility, batch.candidates, n, ties_of(batch))


def uniform(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
    """n candidates uniformly."""
    return pick(-batch.noise("uniform selector"), batch.candidates, n)


@dataclass(frozen=True)
class TopkThenUniform:
    """Heuristic B: max(n, ceil(top x candidates)) of highest utility, of these n uniformly."""

    top: float = 0.05

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """n of the most useful candidates; the priority is the draw's key."""
        count = share_of(batch, self.top, n)
        best = highest(utility.flatten(1), batch.candidates.flatten(1), count, ties_of(batch))
        return pick(-batch.noise("topk-then-uniform"), best.view_as(batch.candidates), n)


@dataclass(frozen=True)
class UniformThenTopk:
    """Heuristic A: max(n, ceil(share x candidates)) uniformly, of these the n of highest utility."""

    share: float = 0.05

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """The most useful n of a uniform share; the priority is the utility."""
        keys = -batch.noise("uniform-then-topk").flatten(1)
        drawn = highest(keys, batch.candidates.flatten(1), share_of(batch, self.share, n))
        return pick(utility, drawn.view_as(batch.candidates), n, ties_of(batch))


def ties_of(batch: PoolBatch) -> Callable[[], Tensor]:
    """By what equal utilities are told apart: by index they would be asked at the image's upper edge."""
    return partial(batch.noise, "ties")


def share_of(batch: PoolBatch, share: float, n: int) -> Tensor:
    """max(n, ceil(share x candidates)) of each image, int64 [B], in decimal: 0.05 x 140 is 7, not 8."""
    exact = Decimal(str(share))
    counts = batch.candidates.flatten(1).sum(1).tolist()
    wanted = [max(n, int((exact * count).to_integral_value(ROUND_CEILING))) for count in counts]
    return torch.tensor(wanted, device=batch.candidates.device)
