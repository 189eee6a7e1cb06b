"""The network; torch is imported here and not in the package's __init__, for which every command waits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Network(nn.Module):
    """Images -> features -> logits, on a grid an eighth of the image's size."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.encoder = nn.Sequential(block(3, width), block(width, width), block(width, width))
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Conv2d(width, classes, 1)

    def encode(self, images: Tensor) -> Tensor:
        """float32 [B, 3, H, W] in [0, 1] -> features."""
        return self.encoder((images - self.mean) / self.deviation)

    def decode(self, features: Tensor) -> Tensor:
        """Features -> float32 logits [B, C, h, w]."""
        return self.classifier(self.dropout(features)).float()

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters as encoder and decoder; the recipe holds their rates."""
        return {"encoder": list(self.encoder.parameters()), "decoder": list(self.classifier.parameters())}


def block(inputs: int, outputs: int) -> nn.Module:
    """A convolution that halves the grid."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
