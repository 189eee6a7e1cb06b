"""Noise on another acquirer's utilities, by which the highest of them become a draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alseg.protocols import Acquirer
from alseg.ranking import places
from alseg.values import PoolBatch
from alseg_pixelpick.selectors import ties_of

LEAST = 1e-300  # in place of a utility of 0, whose logarithm is none


@dataclass(frozen=True)
class Power:
    """Gumbel noise on utilities, so that the n highest are a draw without replacement.

    Kirsch et al., "Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning", TMLR 2023,
    section 3: with g from Gumbel(0, 1 / beta), `power` is log s + g, which draws by s^beta; `softmax` is s + g,
    by exp(beta s); `rank` is -log r + g, by r^-beta, r being the place of the pixel among its image's candidates
    from 1 on. Powers take utilities from 0 on: they are shifted by the least that the acquirer says it gives
    (`lowest`), or where it does not say, in an image with a candidate below 0, by that image's lowest.
    """

    acquirer: Acquirer
    beta: float = 1.0
    form: Literal["power", "softmax", "rank"] = "power"

    def __call__(self, batch: PoolBatch) -> Tensor:
        """float64 [B, H, W]."""
        utility = self._logarithms(self.acquirer(batch).double(), batch)
        uniform = batch.noise("power noise").clamp(min=2.0**-54)  # 0 has no logarithm
        return utility - (-uniform.log()).log() / self.beta

    def _logarithms(self, utility: Tensor, batch: PoolBatch) -> Tensor:
        """Of what the odds are powers of."""
        if self.form == "rank":
            return rank_logarithms(utility, batch)
        return utility if self.form == "softmax" else logarithms(utility, batch, getattr(self.acquirer, "lowest", None))


def logarithms(utility: Tensor, batch: PoolBatch, lowest: float | None) -> Tensor:
    """log s, s being how far above the acquirer's least a utility is, or above that of an image with one below 0."""
    if lowest is not None:
        return (utility - min(lowest, 0)).clamp(min=LEAST).log()
    least = torch.where(batch.candidates, utility, torch.inf).flatten(1).amin(1).clamp(max=0)
    return (utility - least[:, None, None]).clamp(min=LEAST).log()


def rank_logarithms(utility: Tensor, batch: PoolBatch) -> Tensor:
    """-log r among the candidates of each image."""
    flat, groups = utility.flatten(1), torch.zeros_like(batch.candidates, dtype=torch.int64).flatten(1)
    ranks = places(flat, groups, batch.candidates.flatten(1), ties_of(batch)) + 1
    return -ranks.double().log().view_as(utility)
