"""timm encoders with their weights and input normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg_pixelpick.folding import folded
from alseg_pixelpick.weights import channels_first, check_encoder, created, refused_size, weights_digest

Choose = Callable[[Sequence[int]], Sequence[int]]  # strides, finest map first -> numbers of the wanted maps


def low_and_last(strides: Sequence[int]) -> Sequence[int]:
    """The map at stride 4 (or the finest there is) and the last map."""
    return max((i for i, stride in enumerate(strides) if stride <= 4), default=0), len(strides) - 1


def last_four(strides: Sequence[int]) -> Sequence[int]:
    """The last four maps, or as many as there are."""
    return range(max(0, len(strides) - 4), len(strides))


class Encoder(nn.Module):
    """A timm encoder that gives the maps which `choose` picks, with their `channels` and `strides`.

    `weights` is "default" (timm's hub), "none" or a file in timm's layout of this encoder.
    `origin` tells which weights these were and their SHA-256. UserMistake where it has not `exactly` the output
    stride, since its family cannot be dilated.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, weights: str, output_stride: int, choose: Choose = low_and_last, exactly: bool = False
    ) -> None:
        super().__init__()
        self.body, self._picked = _body(name, weights, output_stride, choose)
        info = self.body.feature_info
        self.channels = tuple(info.channels()[i] for i in self._picked)
        self.strides = tuple(info.reduction()[i] for i in self._picked)
        if exactly and self.strides[-1] != output_stride:
            raise UserMistake(
                f"The encoder {name!r} has an output stride of {self.strides[-1]} and cannot be given {output_stride}: "
                "leave model.output_stride out."
            )
        config = self.body.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        self.origin = {"encoder": name, "weights": weights, "sha256": weights_digest(self.body, weights)}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] in [0, 1] -> the chosen maps."""
        try:
            maps = self.body((images - self.mean) / self.std)
        except AssertionError as error:  # a transformer of one image size
            raise refused_size(self.origin["encoder"], images, error) from error
        chosen = zip(self._picked, self.channels, strict=True)
        return tuple(channels_first(maps[i], channels) for i, channels in chosen)

    def fold(self, precision: torch.dtype) -> None:
        """Fold the batch norms away, in evaluation mode and for good; weights in this precision."""
        self.body = folded(self.body, precision)


def _body(name: str, weights: str, stride: int, choose: Choose) -> tuple[Any, list[int]]:
    check_encoder(name)
    create = partial(_dilated, stride, features_only=True)
    # A bare network tells which of its maps are wanted without reading any weights.
    with torch.device("meta"):
        info = created(name, "none", create).feature_info
    wanted = choose(info.reduction())
    kept = sorted(set(wanted))
    return created(name, weights, partial(create, out_indices=tuple(kept))), [kept.index(i) for i in wanted]


def _dilated(stride: int, name: str, **options: Any) -> Any:
    """The encoder, dilated to the output stride where its family knows how."""
    try:
        return timm.create_model(name, output_stride=stride, **options)
    except (NotImplementedError, AssertionError, TypeError):
        return timm.create_model(name, **options)
