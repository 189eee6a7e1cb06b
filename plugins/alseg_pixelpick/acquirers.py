"""The uncertainty measures of PixelPick, section 3.2; higher = ask first."""

from __future__ import annotations

from torch import Tensor

from alseg.values import PoolBatch


def least_confidence(batch: PoolBatch) -> Tensor:
    """1 - max_c p(c), [B, H, W]."""
    return 1 - batch.prediction.top2()[0]


class Margin:
    """Minus the gap between the two likeliest classes."""

    lowest = -1.0

    def __call__(self, batch: PoolBatch) -> Tensor:
        """-(p(1st) - p(2nd)), [B, H, W]."""
        first, second = batch.prediction.top2()
        return second - first


def entropy(batch: PoolBatch) -> Tensor:
    """-sum_c p(c) log p(c) in nats, [B, H, W]."""
    return batch.prediction.entropy()


def random(batch: PoolBatch) -> Tensor:
    """Uniform in [0, 1), [B, H, W]."""
    return batch.noise("random acquirer")
