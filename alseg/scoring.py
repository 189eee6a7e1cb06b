"""A model held against masks: the confusion matrix of the evaluation split, and test's mean IoU."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import torch

from alseg.config import RunConfig
from alseg.data import RunImages
from alseg.engine.device import deterministic, in_smaller_batches, inferring
from alseg.engine.evaluate import confusion_matrix, scores
from alseg.engine.images import DecodedImages
from alseg.engine.predict import predict
from alseg.engine.team import ALONE, Team
from alseg.progress import Progress, Quiet
from alseg.protocols import Model
from alseg.trust import accuracy
from alseg.values import Classes, PixelLabels


class Scoring:
    """Evaluates a run's models; members of a team each look at their share."""

    def __init__(
        self,
        images: RunImages,
        classes: Classes,
        config: RunConfig,
        *,
        device: torch.device,
        precision: torch.dtype,
        progress: Progress,
        team: Team = ALONE,
    ) -> None:
        self._images, self._classes, self._config = images, classes, config
        self._device, self._precision, self._progress, self._team = device, precision, progress, team

    def matrix(self, model: Model, phase: str | None = None) -> np.ndarray:
        """The confusion matrix on the evaluation split, int64 [C, C]."""
        assert self._images.held_out is not None
        self._team.equal(model)
        return self._confusion(model, self._images.held_out, phase)

    def test_miou(self, model: Model) -> float:
        """Mean IoU on test."""
        assert self._images.test is not None
        return scores(self._confusion(model, self._images.test), self._classes).miou or 0.0

    def audited(self, model: Model, labels: PixelLabels) -> dict[str, Any] | None:
        """The model's accuracy at the pool's audited pixels, with its interval; None where there are none.

        Those that the run began with were drawn over another pool, and do not count.
        """
        audits = [label for label in labels.audits() if not label.is_start]
        found = [label for label in audits if label.name is not None]
        pool, config = self._images.pool, self._config
        numbers = {pool.key(i): i for i in range(len(pool))}
        names: dict[str, str] = {}
        with inferring(model, self._precision) as quick, torch.no_grad():
            for image, asked in groupby(sorted(found, key=attrgetter("image")), key=attrgetter("image")):
                size = config.evaluate.size or config.query.size
                prediction = predict(quick, [pool.image(numbers[image])], size, self._device, self._precision)
                prediction.refuse_spoilt()
                seen = prediction.predicted()[0]
                names |= {label.item: self._classes.names[int(seen[label.y, label.x])] for label in asked}
        unsure = len(audits) - len(found)
        return accuracy(found, [names[label.item] for label in found], unsure)

    def _confusion(self, model: Model, images: DecodedImages, phase: str | None = None) -> np.ndarray:
        config, progress = self._config, Quiet() if phase is None else self._progress

        def matrix(batch_size: int) -> np.ndarray:
            with progress.phase(phase or "", len(images)) as step:
                return confusion_matrix(
                    model,
                    images,
                    self._classes,
                    size=config.evaluate.size or config.query.size,
                    batch_size=batch_size,
                    device=self._device,
                    precision=self._precision,
                    workers=config.train.workers,
                    advance=lambda done: step(done, ""),
                    team=self._team,
                )

        with deterministic(config.deterministic):
            # members' shares come from the same batches: one of them cannot go on with smaller ones
            size, least = config.evaluate.batch_size, 1 if self._team.size == 1 else config.evaluate.batch_size
            return in_smaller_batches(matrix, size, "evaluating in batches", self._progress.say, least)
