"""The tiny model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from alseg.grid import sample

MEAN, DEVIATION = 0.45, 0.25  # of the images, all channels alike


class TinyModel(nn.Module):
    """Two strided convolutions and a classifier; features are one map [B, channels, H / 4, W / 4], rounded up."""

    def __init__(self, classes: int, channels: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The two convolutions, and what stands on them."""
        encoder = [*self.first.parameters(), *self.second.parameters()]
        return {"encoder": encoder, "decoder": [*self.norm.parameters(), *self.classifier.parameters()]}

    def encode(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> [B, channels, h, w]."""
        return self.second(self.first((images - MEAN) / DEVIATION).relu())

    def embedding(self, features: Tensor) -> Tensor:
        """Features -> what the classifier sees, [B, channels, h, w]."""
        return self.norm(features).relu()

    def decode(self, features: Tensor) -> Tensor:
        """Features -> logits float32 [B, C, h, w]."""
        x = self.dropout(self.embedding(features))
        with torch.autocast(x.device.type, enabled=False):
            return self.classifier(x.float())

    def decode_at(self, features: Tensor, points: Tensor) -> Tensor:
        """Logits [B, C, n] at points [B, n, 2]."""
        return sample(self.decode(features), points)

    def forward(self, images: Tensor) -> Tensor:
        """Images -> logits."""
        return self.decode(self.encode(images))
