"""Disagreement among dropout passes, each measure in one stream over them; higher = ask first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alseg.values import PoolBatch


@dataclass(frozen=True)
class VoteEntropy:
    """Entropy of the shares of the votes, in nats (Dagan and Engelson, ICML 1995, equation 1)."""

    passes: int = 20

    def __call__(self, batch: PoolBatch) -> Tensor:
        """In [0, log C], [B, H, W]."""
        return torch.special.entr(_vote_shares(batch, self.passes)).sum(1)


@dataclass(frozen=True)
class VariationRatio:
    """The share of the votes that are not for the class with most of them (Freeman 1965)."""

    passes: int = 20

    def __call__(self, batch: PoolBatch) -> Tensor:
        """In [0, 1 - 1 / C], [B, H, W]."""
        return 1 - _vote_shares(batch, self.passes).amax(1)


@dataclass(frozen=True)
class SoftVote:
    """Entropy of the mean probabilities, in nats (Gal, Islam and Ghahramani, ICML 2017, section 4)."""

    passes: int = 20

    def __call__(self, batch: PoolBatch) -> Tensor:
        """In [0, log C], [B, H, W]."""
        return _means(batch, self.passes)[0]


@dataclass(frozen=True)
class BALD:
    """Mutual information of class and weights, in nats (Houlsby et al. 2011; Gal et al. 2017, section 4).

    The entropy of the mean probabilities less the mean of their entropies.
    """

    passes: int = 20

    def __call__(self, batch: PoolBatch) -> Tensor:
        """In [0, log C], [B, H, W]; exactly 0 where all passes agree."""
        of_mean, mean = _means(batch, self.passes)
        return (of_mean - mean).clamp(min=0)  # below 0 by rounding alone


def _vote_shares(batch: PoolBatch, passes: int) -> Tensor:
    """The share of passes in which a class is the likeliest, [B, C, H, W]."""
    votes: Tensor | None = None
    for probabilities in batch.prediction.samples(passes):
        if votes is None:
            votes = torch.zeros_like(probabilities)
            classes = torch.arange(votes.shape[1], device=votes.device).view(-1, 1, 1)
        votes += probabilities.argmax(1, keepdim=True) == classes
    assert votes is not None
    return votes / passes


def _means(batch: PoolBatch, passes: int) -> tuple[Tensor, Tensor]:
    """The entropy of the mean probabilities, and the mean entropy, [B, H, W] each.

    Running means, which stay exactly what they are as long as each pass says the same.
    """
    samples = batch.prediction.samples(passes)
    mean = next(samples)
    entropy = torch.special.entr(mean).sum(1)
    for number, probabilities in enumerate(samples, 2):
        mean = mean.lerp(probabilities, 1 / number)
        entropy = entropy.lerp(torch.special.entr(probabilities).sum(1), 1 / number)
    return torch.special.entr(mean).sum(1), entropy
