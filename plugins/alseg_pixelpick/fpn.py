"""A feature pyramid for segmentation (Kirillov et al., CVPR 2019) on any timm encoder, as PixelPick uses it."""

from __future__ import annotations

from math import gcd, log2
from typing import NamedTuple

import torch
from torch import Tensor, nn

from alseg.grid import resize
from alseg_pixelpick.encoders import Encoder
from alseg_pixelpick.folding import detached_copy

GROUPS = 32


class Features(NamedTuple):
    """The encoder's maps, finest first, and the image's own (H, W), at which the logits come out."""

    maps: tuple[Tensor, ...]
    size: tuple[int, int]


def block(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, group norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(gcd(GROUPS, outputs), outputs),
        nn.ReLU(inplace=True),
    )


class Branch(nn.Module):
    """One level's way to half the image's size: log2(stride) blocks with bilinear upsampling between them."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        count = max(1, round(log2(stride)))
        self.blocks = nn.ModuleList(block(channels if i else inputs, channels) for i in range(count))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """A level [B, c, h, w] of images of `size` -> [B, channels, H / 2, W / 2], rounded up."""
        for number, convolve in enumerate(self.blocks, 1):
            x = resize(convolve(x), _shrunk(size, max(1, len(self.blocks) - number)))
        return x


class FPN(nn.Module):
    """FPN: 1x1 lateral convolutions, top-down addition, a branch from each level, their sum, a classifier.

    The published code upsamples each branch to the image's size, adds, and classifies there. Bilinear
    upsampling commutes with sums and 1x1 convolutions, so here the last upsampling comes last, of C maps
    and not of four times `channels`; the logits are the same.
    """

    def __init__(self, encoder: Encoder, classes: int, channels: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        self.origin = encoder.origin
        self.laterals = nn.ModuleList(nn.Conv2d(inputs, 2 * channels, 1) for inputs in encoder.channels)
        self.branches = nn.ModuleList(Branch(2 * channels, channels, stride) for stride in encoder.strides)
        self.classifier = nn.Conv2d(channels, classes, 1)
        for module in (self.laterals, self.branches, self.classifier):
            for part in module.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_normal_(part.weight)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The pretrained part and the part that starts from noise."""
        decoder = (self.laterals, self.branches, self.classifier)
        return {
            "encoder": list(self.encoder.parameters()),
            "decoder": [parameter for module in decoder for parameter in module.parameters()],
        }

    def encode(self, images: Tensor) -> Features:
        """[B, 3, H, W] in [0, 1] -> features."""
        return Features(self.encoder(images), (images.shape[-2], images.shape[-1]))

    def decode(self, features: Features) -> Tensor:
        """Features -> logits [B, C, H, W], float32, at the image's size."""
        x = self.embedding(features)
        # float32 whatever the precision around it: rounded logits would tie utilities
        with torch.autocast(x.device.type, enabled=False):
            return resize(self.classifier(x.float()), features.size)

    def embedding(self, features: Features) -> Tensor:
        """Features -> what the classifier sees, [B, channels, H / 2, W / 2], rounded up."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, features.maps, strict=True)]
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + resize(levels[i + 1], levels[i].shape[-2:])
        total = self.branches[0](levels[0], features.size)
        for branch, level in zip(self.branches[1:], levels[1:], strict=True):
            total = total + branch(level, features.size)
        return total

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, H, W]."""
        return self.decode(self.encode(images))

    def for_inference(self, precision: torch.dtype) -> FPN:
        """A copy in evaluation mode with the same logits but for rounding, the encoder's norms folded away."""
        made = detached_copy(self)
        made.encoder.fold(precision)
        return made


def _shrunk(size: tuple[int, int], halvings: int) -> tuple[int, int]:
    """A size halved so often, rounded up as strided convolutions do."""
    return -(-size[0] >> halvings), -(-size[1] >> halvings)
