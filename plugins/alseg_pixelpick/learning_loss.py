"""Learning loss (Yoo and Kweon, CVPR 2019) for pixels: a small module learns which points have a high loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.device import mode
from alseg.grid import resize, sample
from alseg.protocols import Model
from alseg.values import PoolBatch, Taught

NAME = "learning-loss"
PROBED = (64, 224, 256, 384, 448, 512)  # pixels a side of an empty image, the usual ones


class LearningLoss(nn.Module):
    """Predicts the cross-entropy at each place from all maps that the encoder gives.

    The paper's module pools each map over the image, since its loss is the image's; here each map is seen at the
    place: a 1x1 convolution to `width` channels, resized to the finest map's grid, and ReLU, all maps together
    then weighed into one number (section 3.2). It is trained to rank: of two points, the predicted losses
    are to differ by `margin` in the direction of the true ones (section 3.3, equation 2). After the share
    `joint` of the training it no longer moves the model (section 4.1: after 120 of 200 epochs).
    """

    def __init__(self, model: Model, width: int, weight: float, margin: float, joint: float) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in channels_of(model))
        self.last = nn.Conv2d(len(self.levels) * width, 1, 1)
        self._weight, self._margin, self._joint = weight, margin, joint
        self._done = 0.0

    def seen(self, features: Any) -> Tensor:
        """Features -> predicted loss, float32 [B, 1, h, w], on the finest map's grid."""
        maps = list(maps_of(features))
        size = max((each.shape[-2:] for each in maps), key=lambda shape: shape[0] * shape[1])
        # float32 whatever the precision around it: rounded losses would tie
        with torch.autocast(maps[0].device.type, enabled=False):
            parts = [
                F.relu(resize(level(each.float()), (size[0], size[1])))
                for level, each in zip(self.levels, maps, strict=True)
            ]
            return self.last(torch.cat(parts, 1))

    def loss(self, model: Model, taught: Taught) -> Tensor:
        """The mean of max(0, margin - sign(l_i - l_j) (p_i - p_j)) over pairs of the batch's points, weighted.

        p are predicted, l true losses; the points are paired at random, each in one pair at most.
        """
        predicted = self.seen(taught.features if self._done < self._joint else _detached(taught.features))
        p, true = sample(predicted, taught.points).flatten(), taught.losses.detach().flatten()
        known = (taught.classes >= 0).flatten()
        # padding comes last, so that no point is paired with it but the last of an odd number
        order = torch.where(known, torch.rand(len(p), device=p.device), 2).argsort()
        one, other = order[: len(p) // 2 * 2].view(-1, 2).unbind(1)
        sign = torch.where(true[one] > true[other], 1.0, -1.0)
        both = known[one] & known[other]
        pairs = F.relu(self._margin - sign * (p[one] - p[other])).where(both, 0)
        return self._weight * pairs.sum() / both.sum().clamp(min=1)

    def after_step(self, model: Model, done: float) -> None:
        """The share of the training that is done, in (0, 1]."""
        self._done = done


def predicted_loss(batch: PoolBatch) -> Tensor:
    """What the term says of each pixel, [B, H, W]; any number, the order counts."""
    return batch.prediction.term(NAME)


def maps_of(features: Any) -> Iterator[Tensor]:
    """All maps [B, c, h, w] in a model's features, in order."""
    if isinstance(features, Tensor):
        if features.dim() == 4:
            yield features
    elif isinstance(features, Mapping):
        yield from maps_of(list(features.values()))
    elif isinstance(features, list | tuple):
        for part in features:
            yield from maps_of(part)


@torch.no_grad()
def channels_of(model: Model) -> list[int]:
    """How many channels each map of a model's features has, seen on an empty image of a size that it takes."""
    with mode(model, False):
        maps = list(maps_of(_features(model)))
    if not maps:
        raise ValueError("the model's features hold no map [B, c, h, w]")
    return [each.shape[1] for each in maps]


def _features(model: Model) -> Any:
    """Of an image of the first size that the model takes: transformers may have one alone."""
    refused: Exception | None = None
    for side in PROBED:
        try:
            return model.encode(torch.zeros(1, 3, side, side))
        except Exception as error:  # a model's own, of whatever kind
            refused = refused or error
    assert refused is not None
    raise refused


def _detached(features: Any) -> list[Tensor]:
    return [each.detach() for each in maps_of(features)]
