"""The term; torch is imported here and not in the package's __init__, for which every command waits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alseg import Model, Taught


class Confidence(nn.Module):
    """A penalty on low entropy (Pereyra et al., Regularizing neural networks, 2017)."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self._weight = weight

    def loss(self, model: Model, taught: Taught) -> Tensor:
        """A scalar, which is added to the batch's mean cross-entropy."""
        entropy = torch.special.entr(taught.logits.softmax(1)).sum(1)  # [B, n]
        known = taught.classes >= 0
        return -self._weight * (entropy * known).sum() / known.sum().clamp(min=1)
