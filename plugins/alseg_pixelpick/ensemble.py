"""Several models as one (Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, "deep ensembles")."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg.protocols import Model


class Ensemble(nn.Module):
    """Models of one kind that differ in their first weights and in their dropout.

    All see the same batches, each learning by its own loss as if it were alone. Features are the list of the
    members' features; the logits are the logarithm of the mean of the members' probabilities.
    """

    def __init__(self, members: Sequence[Model]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)  # type: ignore[arg-type]
        self.origin = getattr(members[0], "origin", None)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The members' groups of one name together."""
        groups: dict[str, list[nn.Parameter]] = {}
        for member in self._models():
            for name, parameters in member.parameter_groups().items():
                groups.setdefault(name, []).extend(parameters)
        return groups

    def encode(self, images: Tensor) -> list[Any]:
        """[B, 3, H, W] in [0, 1] -> the features of each member."""
        return [member.encode(images) for member in self._models()]

    def decode(self, features: list[Any]) -> Tensor:
        """Features -> log mean_i p_i(c), float32 [B, C, h, w], whose softmax is the mean."""
        total: Tensor | None = None
        for member, of_member in zip(self._models(), features, strict=True):
            logarithms = member.decode(of_member).float().log_softmax(1)
            total = logarithms if total is None else torch.logaddexp(total, logarithms)
        assert total is not None
        return total - math.log(len(self.members))

    def embedding(self, features: list[Any]) -> Tensor:
        """Features -> the members' embeddings one after the other, [B, D, h, w]; UserMistake where they have none."""
        pairs = list(zip(self.members, features, strict=True))
        if not all(hasattr(member, "embedding") for member, _ in pairs):
            raise UserMistake(f"The ensemble's members, {type(self.members[0]).__name__}, have no embedding.")
        return torch.cat([member.embedding(of_member) for member, of_member in pairs], 1)  # type: ignore[operator]

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, h, w]."""
        return self.decode(self.encode(images))

    def for_inference(self, precision: torch.dtype) -> Ensemble:
        """One of the members' own fast copies, where they have them."""
        made: list[Any] = []
        for member in self.members:
            copy = getattr(member, "for_inference", None)
            made.append(member if copy is None else copy(precision))
        return Ensemble(made).eval()

    def _models(self) -> Iterator[Model]:
        return iter(self.members)  # type: ignore[arg-type]
