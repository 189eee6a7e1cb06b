"""The numbers of one round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from alseg.engine.evaluate import scores
from alseg.values import Classes, PixelLabel, PixelLabels, Question


def round_record(
    *,
    round: int,
    questions: Sequence[Question],
    labels: PixelLabels,
    images: int,
    classes: Classes,
    split: str | None,
    matrix: np.ndarray | None,
    loss: float | None,
    train_seconds: float,
    acquire_seconds: float,
    evaluate_seconds: float,
    device: str,
) -> dict[str, Any]:
    """A line of rounds.jsonl; IoU and accuracy are fractions in [0, 1], null without a mask."""
    known = [label for label in labels if label.name is not None]
    result = None if matrix is None else scores(matrix, classes)
    return {
        "round": round,
        "asked_pixels": len(questions),
        "labelled_pixels": len(known),
        "pixels_per_image": len(known) / images,
        "split": split if result is not None else None,
        "miou": result.miou if result is not None else None,
        "iou": result.iou if result is not None else None,
        "pixel_accuracy": result.pixel_accuracy if result is not None else None,
        "classes_per_image": classes_per_image(label for label in known if label.round == round),
        "classes_per_image_total": classes_per_image(known),
        "loss": loss,
        "train_seconds": train_seconds,
        "acquire_seconds": acquire_seconds,
        "evaluate_seconds": evaluate_seconds,
        "device": device,
    }


def classes_per_image(labels: Iterable[PixelLabel]) -> float | None:
    """Mean number of distinct classes among an image's pixels, over images with any."""
    seen: dict[str, set[str | None]] = {}
    for label in labels:
        seen.setdefault(label.image, set()).add(label.name)
    return sum(map(len, seen.values())) / len(seen) if seen else None
