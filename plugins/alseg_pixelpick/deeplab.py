"""DeepLabv3+ on any timm encoder (Chen et al., ECCV 2018), as PixelPick uses it."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.aside import side_by_side
from alseg.grid import constant, corners_around, weights_of
from alseg_pixelpick.convolutions import resized_convolution
from alseg_pixelpick.encoders import Encoder
from alseg_pixelpick.folding import absorb, detached_copy, fold_block
from alseg_pixelpick.looking_up import cells_at
from alseg_pixelpick.patch_norm import normalised
from alseg_pixelpick.patches import drawn_cells, fused_patches
from alseg_pixelpick.pooling import MeanPool2d, spread
from alseg_pixelpick.resizing import joined

# So many cells of the map cost what a patch does, which has 16 and 4 of its own in the two convolutions and is
# gathered: training steps on CPUs gave 16 to 40 by size, threads and precision, 28 in the median.
PATCH_COST = 28

Features = tuple[Tensor, Tensor]  # low level [B, c, h, w] and high level [B, c', h', w']


def convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution without bias that keeps the size, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def dilated(inputs: int, outputs: int, rate: int) -> nn.Sequential:
    """`convolution` with a dilated 3x3 kernel."""
    convolve = nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False)
    return nn.Sequential(convolve, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and image pooling, projected to `channels`."""

    def __init__(self, inputs: int, rates: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [convolution(inputs, channels, 1)] + [dilated(inputs, channels, rate) for rate in rates]
        )
        self.pooling = nn.Sequential(MeanPool2d(), *convolution(inputs, channels, 1))
        self.project = convolution(channels * (len(rates) + 2), channels, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, high: Tensor) -> Tensor:
        """The encoder's last map -> [B, channels, h, w]."""
        # the most dilated first, which takes longest
        calls = [partial(branch, high) for branch in (*reversed(self.branches), self.pooling)]
        *branches, pooled = side_by_side(calls, [high]) if self.training else [call() for call in calls]
        return self.dropout(self.project(torch.cat([*reversed(branches), spread(self, pooled, high)], 1)))


class DeepLabV3Plus(nn.Module):
    """DeepLabv3+: ASPP on the encoder's last map, a 48-channel low-level branch, two 3x3 convolutions.

    `rates` are ASPP's at output stride 16; at 8 they are doubled (Chen et al. 2017, "Rethinking Atrous
    Convolution for Semantic Image Segmentation", section 3.3), so that they reach as far in the image.

    `encode` is the timm encoder; `decode` gives float32 logits on the low-level map's grid (stride 4);
    `decode_sampled` gives the logits that `decode`'s bilinear upsampling has at points, classifying only the
    four cells around each; `decode_at` computes the two 3x3 convolutions, too, only on the 6x6 patches that
    these points see.
    """

    # Uniformly drawn patches of a batch that feed the batch norms while `decode_at` trains.
    reference_patches = 96

    def __init__(
        self, encoder: Encoder, classes: int, channels: int = 256, rates: tuple[int, ...] = (6, 12, 18)
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.origin = encoder.origin
        low, high = encoder.channels
        factor = 2 if encoder.strides[-1] <= 8 else 1
        self.aspp = ASPP(high, tuple(factor * rate for rate in rates), channels)
        self.low_level = convolution(low, 48, 1)
        self.first = convolution(channels + 48, channels)
        self.first_dropout = nn.Dropout(0.5)
        self.second = convolution(channels, channels)
        self.second_dropout = nn.Dropout(0.2)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The pretrained part and the part that starts from noise."""
        encoder = list(self.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        return {"encoder": encoder, "decoder": [p for p in self.parameters() if id(p) not in known]}

    def encode(self, images: Tensor) -> Features:
        """[B, 3, H, W] in [0, 1] -> low- and high-level features."""
        low, high = self.encoder(images)
        return low, high

    def decode(self, features: Features) -> Tensor:
        """Features -> logits [B, C, h, w], float32, on the low-level grid."""
        x = self.second_dropout(self._second(features))
        # float32 whatever the precision around it: rounded logits would tie utilities
        with torch.autocast(x.device.type, enabled=False):
            return self.classifier(x.float())

    def decode_sampled(self, features: Features, points: Tensor) -> Tensor:
        """`alseg.grid.sample` of `decode`'s map at points [B, n, 2]: [B, C, n].

        The norms see the whole map; dropout is drawn for each of a point's four cells.
        """
        return self._weighed(*cells_at(self._second(features), points))

    def embedding(self, features: Features) -> Tensor:
        """Features -> what the classifier sees, [B, c, h, w]."""
        return self.second(self._first(features))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, h, w]."""
        return self.decode(self.encode(images))

    def decode_at(self, features: Features, points: Tensor) -> Tensor:
        """Logits at points.

        `points` is [B, n, 2], (y, x) as fractions of the image's height and width; the result is
        [B, C, n]. In evaluation mode it equals sampling `decode`'s map. In training the two batch norms
        take their statistics from `reference_patches` uniformly drawn patches, never from the labelled
        ones, which would bias them. Where the patches would cost as much as the map, the map
        is computed.
        """
        batch, _, height, width = features[0].shape
        references = -(-self.reference_patches // batch) if self.training else 0  # of each image
        if (points.shape[1] + references) * PATCH_COST >= height * width:
            return self.decode_sampled(features, points)
        corners, beyond = corners_around(points, (height, width))  # [B, n, 2] each
        if self.training:
            drawn = drawn_cells(batch, references, (max(height - 1, 1), max(width - 1, 1)), corners)
            corners = torch.cat([corners, drawn], 1)
        low, context = self._branches(features)
        patches, inside = fused_patches(low, context, corners)  # [B * m, c, 6, 6], [B * m, 1, 4, 4]
        counted = _of_the_last(references, inside, batch) if self.training else None
        x = self._normalised(self.first, patches, counted)
        x = self.first_dropout(x * inside)  # the dense convolution sees zeros outside the map
        x = self._normalised(self.second, x, None if counted is None else counted[:, :, 1:3, 1:3])
        x = x.unflatten(0, (batch, -1))[:, : points.shape[1]]  # [B, n, c, 2, 2]
        return self._weighed(x.flatten(3).transpose(2, 3), weights_of(beyond))

    def _first(self, features: Features) -> Tensor:
        """The first convolution, of both branches on the low-level grid."""
        low, context = self._branches(features)
        if low.device.type != "cpu":
            return self.first(joined(context, low))
        convolve, norm, activate = self.first
        assert isinstance(convolve, nn.Conv2d)
        by_context, by_low = convolve.weight.split([context.shape[1], low.shape[1]], 1)
        x = F.conv2d(low, by_low, convolve.bias, padding=1)
        return activate(norm(x.add_(resized_convolution(context, by_context, (low.shape[-2], low.shape[-1])))))

    def _branches(self, features: Features) -> Features:
        """The decoder's low-level branch and its context, on the grids of the two maps."""
        low, high = features
        calls = [partial(self.aspp, high), partial(self.low_level, low)]
        context, low = side_by_side(calls, features) if self.training else [call() for call in calls]
        return low, context

    def _second(self, features: Features) -> Tensor:
        """What the classifier sees but for its dropout, [B, c, h, w]."""
        return self.second(self.first_dropout(self._first(features)))

    def _weighed(self, cells: Tensor, weights: Tensor) -> Tensor:
        """Logits [B, C, n] of points, of whose cells the classifier sees [B, n, 4, c]; weights: [B, n, 4]."""
        x = self.second_dropout(cells)
        # float32 as in `decode`; weighed before they are classified, which is linear: weights add up to 1
        with torch.autocast(x.device.type, enabled=False):
            x = (x * weights[..., None]).sum(2).float()  # [B, n, c]
            return F.linear(x, self.classifier.weight.flatten(1), self.classifier.bias).transpose(1, 2)

    def for_inference(self, precision: torch.dtype) -> DeepLabV3Plus:
        """A copy in evaluation mode with the same logits but for rounding, its norms folded away."""
        made = detached_copy(self)
        made.encoder.fold(precision)
        aspp = made.aspp
        aspp.branches = nn.ModuleList(fold_block(block, precision) for block in aspp.branches)  # type: ignore[arg-type]
        aspp.pooling, aspp.project = fold_block(aspp.pooling, precision), fold_block(aspp.project, precision)
        made.low_level, made.second = fold_block(made.low_level, precision), fold_block(made.second, precision)
        absorb(made.first)
        return made

    @staticmethod
    def _normalised(block: nn.Sequential, x: Tensor, counted: Tensor | None) -> Tensor:
        """Unpadded convolution, batch norm and ReLU of patches; statistics of what is counted."""
        convolve, norm = block[0], block[1]
        assert isinstance(convolve, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        x = F.conv2d(x, convolve.weight)
        return F.relu(norm(x)) if counted is None else normalised(x.float(), counted, norm)


def _of_the_last(count: int, inside: Tensor, batch: int) -> Tensor:
    """`inside` [B * m, 1, r, r] where a patch is one of an image's last `count`, else 0."""
    by_image = inside.unflatten(0, (batch, -1))
    last = constant([0] * (by_image.shape[1] - count) + [1] * count, inside, inside.dtype)
    return (by_image * last[:, None, None, None]).flatten(0, 1)
