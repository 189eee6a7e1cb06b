"""Noise on another acquirer's utilities, by which the highest of them become a draw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alseg.protocols import Acquirer
from alseg.ranking import places
from alseg.values import PoolBatch

LEAST = 1e-300  # in place of a utility of 0, whose logarithm is none


@dataclass(frozen=True)
class Power:
    """Gumbel noise on utilities, so that the n highest are a draw without replacement.

    Kirsch et al., "Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning", TMLR 2023,
    section 3: with g from Gumbel(0, 1 / beta), `power` is log s + g, which draws by s^beta; `softmax` is s + g,
    by exp(beta s); `rank` is -log r + g, by r^-beta, r being the place of the pixel among its image's candidates
    from 1 on. Powers take utilities from 0 on: an image with a candidate below is shifted so that its lowest
    is 0.
    """

    acquirer: Acquirer
    beta: float = 1.0
    form: Literal["power", "softmax", "rank"] = "power"

    def __call__(self, batch: PoolBatch) -> Tensor:
        """float64 [B, H, W]."""
        utility = FORMS[self.form](self.acquirer(batch).double(), batch.candidates)
        uniform = batch.noise("power noise").clamp(min=2.0**-54)  # 0 has no logarithm
        return utility - (-uniform.log()).log() / self.beta


def logarithms(utility: Tensor, candidates: Tensor) -> Tensor:
    """log s, where an image has candidates below 0 after they are shifted to begin there."""
    lowest = torch.where(candidates, utility, torch.inf).flatten(1).amin(1).clamp(max=0)
    return (utility - lowest[:, None, None]).clamp(min=LEAST).log()


def rank_logarithms(utility: Tensor, candidates: Tensor) -> Tensor:
    """-log r among the candidates of each image, ties by index."""
    flat = utility.flatten(1)
    ranks = places(flat, torch.zeros_like(flat, dtype=torch.int64), candidates.flatten(1)) + 1
    return -ranks.double().log().view_as(utility)


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "power": logarithms,
    "softmax": lambda utility, candidates: utility,
    "rank": rank_logarithms,
}
