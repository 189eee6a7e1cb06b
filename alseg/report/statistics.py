"""The numbers of one round."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from alseg.engine.evaluate import scores
from alseg.values import Classes, PixelLabel, PixelLabels, Question


def score_statistics(split: str | None, matrix: np.ndarray | None, classes: Classes) -> dict[str, Any]:
    """IoU and accuracy, fractions in [0, 1]; null where no mask exists."""
    if matrix is None:
        return {"split": None, "miou": None, "iou": None, "pixel_accuracy": None}
    result = scores(matrix, classes)
    return {"split": split, "miou": result.miou, "iou": result.iou, "pixel_accuracy": result.pixel_accuracy}


def paper_statistics(watched: Sequence[float] | None) -> dict[str, Any]:
    """The best epoch on test, as the paper reports it, from 1; nothing under the honest protocol."""
    if not watched:
        return {}
    best = max(range(len(watched)), key=lambda epoch: watched[epoch])
    return {"paper_miou": watched[best], "paper_epoch": best + 1}


def asked_statistics(round: int, questions: Sequence[Question], labels: PixelLabels, images: int) -> dict[str, Any]:
    """What was asked and labelled.

    classes_per_image: mean number of distinct classes among an image's pixels of the last asking, the
    paper's diversity; spatial_spread: mean distance in pixels between two of them; agreement: the share of
    answers that the model had guessed. Null where there is nothing to average.
    """
    known = [label for label in labels if label.name is not None]
    new = [label for label in known if label.round == round]
    guesses = {question.item: question.guess for question in questions}
    agreed = [guesses[label.item] == label.name for label in new if guesses.get(label.item) is not None]
    return {
        "asked_pixels": len(questions),
        "labelled_pixels": len(known),
        "pixels_per_image": len(known) / images,
        "classes_per_image": classes_per_image(new),
        "classes_per_image_total": classes_per_image(known),
        "class_counts": dict(sorted(Counter(str(label.name) for label in new).items())),
        "spatial_spread": spatial_spread(questions),
        "mean_utility": _mean(question.utility for question in questions),
        "mean_entropy": _mean(question.entropy for question in questions),
        "agreement": _mean(agreed),
    }


def classes_per_image(labels: Iterable[PixelLabel]) -> float | None:
    """Mean number of distinct classes among an image's pixels, over images with any."""
    seen: dict[str, set[str | None]] = {}
    for label in labels:
        seen.setdefault(label.image, set()).add(label.name)
    return _mean(len(names) for names in seen.values())


def spatial_spread(questions: Iterable[Question]) -> float | None:
    """Mean pairwise distance in pixels between an image's asked pixels, over images with two or more."""
    places: dict[str, list[tuple[int, int]]] = {}
    for question in questions:
        if question.y is not None and question.x is not None:
            places.setdefault(question.image, []).append((question.y, question.x))
    means = []
    for where in places.values():
        points = np.array(where, np.float64)
        if len(points) > 1:
            distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
            means.append(float(distances.sum() / (len(points) * (len(points) - 1))))
    return _mean(means)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
