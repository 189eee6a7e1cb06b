"""What a model thinks of images, on the images' own grid, computed when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from alseg.engine.device import lower_precision
from alseg.grid import resize, resize_images
from alseg.options import Longer, Size, fitted
from alseg.protocols import Model

SizeChoice = Size | Longer | str | None


class ModelPrediction:
    """`Prediction` from logits [B, C, h, w], which are computed when first asked for.

    They are upsampled to `size`, the images' own, before the softmax.
    """

    def __init__(self, logits: Callable[[], Tensor], size: tuple[int, int]) -> None:
        self._logits, self._size = logits, size

    @cached_property
    def _probabilities(self) -> Tensor:
        return resize(self._logits(), self._size).softmax(1)

    @cached_property
    def _top2(self) -> tuple[Tensor, Tensor, Tensor]:
        first, predicted = self._probabilities.max(1)
        rest = self._probabilities.scatter(1, predicted.unsqueeze(1), -1.0)
        return first, rest.amax(1).clamp(min=0), predicted

    def probabilities(self) -> Tensor:
        """float32 [B, C, H, W]."""
        return self._probabilities

    def top2(self) -> tuple[Tensor, Tensor]:
        """Highest and second highest probability, [B, H, W] each; the second is 0 where C is 1."""
        return self._top2[0], self._top2[1]

    def predicted(self) -> Tensor:
        """int64 [B, H, W]."""
        return self._top2[2]

    def entropy(self) -> Tensor:
        """Nats, [B, H, W]."""
        return torch.special.entr(self._probabilities).sum(1)


def predict(
    model: Model,
    images: Sequence[np.ndarray],
    size: SizeChoice,
    device: torch.device,
    precision: torch.dtype,
) -> ModelPrediction:
    """Predictions of images uint8 [H, W, 3] of one size, seen by the model at `size`."""
    assert isinstance(model, nn.Module) and not model.training
    height, width = images[0].shape[:2]

    def logits() -> Tensor:
        batch = torch.from_numpy(np.stack(images)).to(device, non_blocking=True).permute(0, 3, 1, 2)
        scaled = resize_images(batch, fitted(size, (height, width))).contiguous(memory_format=torch.channels_last)
        with lower_precision(device, precision):
            return model.decode(model.encode(scaled)).float()

    return ModelPrediction(logits, (height, width))
