"""A light head on features that are looked up, and computed where nobody has yet."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.grid import cells_around, sample
from alseg_frozen.backbone import Backbone
from alseg_frozen.cache import FeatureStore, image_keys


class FrozenModel(nn.Module):
    """1x1 convolutions on the features [B, D, h, w] of a backbone that is not trained.

    `head`: linear; bn-linear, with batch norm before it, as DINOv2 is evaluated (Oquab et al., TMLR 2024, section
    7.4); mlp, with batch norm and `hidden` channels. Features of an image are computed from that image alone, so
    that they are the same whether they were found or computed, and in whichever batch.
    """

    # Cells of each image, drawn at random, that feed the batch norm while `decode_at` trains.
    reference_cells = 128

    def __init__(
        self, backbone: Backbone, classes: int, head: str, hidden: int, dropout: float, store: FeatureStore
    ) -> None:
        super().__init__()
        self.backbone, self._store = backbone, store
        channels = backbone.channels
        self.norm = nn.Identity() if head == "linear" else nn.BatchNorm2d(channels)
        layers = [nn.Conv2d(channels, hidden, 1), nn.GELU()] if head == "mlp" else []
        self.head = nn.Sequential(*layers, nn.Dropout(dropout), nn.Conv2d(hidden if layers else channels, classes, 1))

    @property
    def origin(self) -> dict[str, str]:
        """Which weights the backbone has."""
        return self.backbone.origin

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The head's parameters; nothing pretrained is trained."""
        return {"encoder": [], "decoder": [*self.norm.parameters(), *self.head.parameters()]}

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> float16 [B, D, h, w]."""
        if torch.compiler.is_compiling():  # a network that is exported computes them
            return self.backbone(images)
        if images.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("frozen features are looked up, which a recorded step cannot do")
        device = images.device
        lower = torch.is_autocast_enabled(device.type)
        precision = str(torch.get_autocast_dtype(device.type) if lower else torch.float32)
        identity = self.backbone.identity(device.type, precision)
        found = []
        for i, key in enumerate(image_keys(images)):
            compute = partial(self._computed, images[i : i + 1])
            # images in evaluation mode are not augmented: they come again in the next round
            found.append(self._store.get(f"{identity}-{key}", device, compute, lasting=not self.training))
        with torch.autocast(device.type, enabled=False):
            return torch.stack(found)

    def _computed(self, image: Tensor) -> Tensor:
        return self.backbone(image)[0].contiguous()

    def decode(self, features: Tensor) -> Tensor:
        """Features -> logits [B, C, h, w], float32."""
        with torch.autocast(features.device.type, enabled=False):
            return self.head(self.norm(features.float()))

    def decode_at(self, features: Tensor, points: Tensor) -> Tensor:
        """Logits [B, C, n] at points [B, n, 2], fractions of height and width.

        The head is computed in the four cells around each point, or everywhere where these are no fewer. In training
        the batch norm takes its statistics from `reference_cells` of each image, never from the labelled ones,
        which would bias them.
        """
        batch, _, height, width = features.shape
        if 4 * points.shape[1] >= height * width:
            return sample(self.decode(features), points)
        cells, weights = cells_around(points, (height, width))  # [B, n, 4] each
        with torch.autocast(features.device.type, enabled=False):
            x = _at(features, cells.flatten(1))
            if isinstance(self.norm, nn.BatchNorm2d) and self.training:
                drawn = torch.randint(height * width, (batch, self.reference_cells), device=features.device)
                x = normalised(self.norm, x, _at(features, drawn))
            else:
                x = self.norm(x)
            logits = self.head(x)  # [B, C, 1, 4 n]
        return (logits[:, :, 0].unflatten(2, (-1, 4)) * weights[:, None]).sum(3)

    def embedding(self, features: Tensor) -> Tensor:
        """Features of length 1, whose distance grows with their angle, [B, D, h, w]."""
        return F.normalize(features.float(), dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, h, w]."""
        return self.decode(self.encode(images))


def _at(features: Tensor, cells: Tensor) -> Tensor:
    """Features float16 [B, D, h, w] in cells [B, m]: float32 [B, D, 1, m]."""
    index = cells[:, None].expand(-1, features.shape[1], -1)
    return features.flatten(2).gather(2, index).float().unsqueeze(2)


def normalised(norm: nn.BatchNorm2d, x: Tensor, reference: Tensor) -> Tensor:
    """What the norm makes of x in training, with the statistics of `reference`, by which its running ones move."""
    norm(reference)
    variance, mean = torch.var_mean(reference, (0, 2, 3), correction=0)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return x * scale[:, None, None] + (norm.bias - mean * scale)[:, None, None]
