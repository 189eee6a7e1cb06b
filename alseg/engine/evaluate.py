"""One confusion matrix on the device, at each mask's own size; ratios come last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alseg.engine.calls import told
from alseg.engine.device import inferring
from alseg.engine.images import DecodedImages, batches_of_one_size, in_threads
from alseg.engine.predict import SizeChoice, predict, spoilt
from alseg.engine.team import ALONE, Team
from alseg.protocols import Model
from alseg.values import Classes


@dataclass(frozen=True)
class Scores:
    """Fractions in [0, 1]; a class that is neither in truth nor prediction is None and not in the mean."""

    miou: float | None
    iou: dict[str, float | None]
    pixel_accuracy: float | None


def confusion(truth: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """int64 [C, C], rows truth and columns prediction; truth outside 0 .. C - 1 is void."""
    known = (truth >= 0) & (truth < classes)
    index = truth[known].long() * classes + predicted[known]
    return torch.bincount(index, minlength=classes * classes).view(classes, classes)


@torch.no_grad()
def confusion_matrix(
    model: Model,
    images: DecodedImages,
    classes: Classes,
    *,
    size: SizeChoice,
    batch_size: int,
    device: torch.device,
    precision: torch.dtype,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
    team: Team = ALONE,
) -> np.ndarray:
    """The confusion matrix over all images that have a mask, int64 [C, C]; each of a team looks at its share."""
    total = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
    is_spoilt = torch.zeros((), dtype=torch.int64, device=device)  # looked at in the end, so that nothing waits
    masked = [i for i in range(len(images)) if images.has_mask[i]]
    groups = batches_of_one_size([images.sizes[i] for i in masked], batch_size, len(classes), device.type)
    numbers = [[masked[j] for j in group] for group in team.share(groups)]
    decoded = in_threads(
        lambda i: (images.image(i), images.mask(i)), [i for group in numbers for i in group], workers, ahead=16
    )
    with inferring(model, precision) as model:
        for group in numbers:
            parts = [next(decoded) for _ in group]
            prediction = predict(model, [image for image, _ in parts], size, device, precision)
            masks = np.stack([mask for _, mask in parts if mask is not None])
            total += confusion(
                torch.from_numpy(masks.astype(np.int32)).to(device), prediction.predicted(), len(classes)
            )
            is_spoilt += prediction.is_spoilt()
            advance(len(group) * team.size)
    if int(team.total(is_spoilt)):
        raise spoilt(told(model).name)
    return team.total(total).cpu().numpy()


def scores(matrix: np.ndarray, classes: Classes) -> Scores:
    """Mean intersection over union, IoU by class, and accuracy, from a confusion matrix."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    iou = {name: float(hits[c] / union[c]) if union[c] else None for c, name in enumerate(classes.names)}
    known = [value for value in iou.values() if value is not None]
    total = int(matrix.sum())
    return Scores(
        miou=float(np.mean(known)) if known else None,
        iou=iou,
        pixel_accuracy=float(hits.sum() / total) if total else None,
    )
