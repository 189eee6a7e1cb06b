"""One round's training: batches from the pool, and words on how it goes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from alseg.config import RunConfig
from alseg.engine.batches import BatchSource
from alseg.engine.device import current, deterministic, out_of_memory
from alseg.engine.images import DecodedImages
from alseg.engine.team import ALONE, Team
from alseg.engine.train import TrainResult, train
from alseg.errors import Lasting
from alseg.options import fitted
from alseg.progress import Progress
from alseg.protocols import Model
from alseg.values import Classes, PixelLabels


def train_round(
    model: Model,
    images: DecodedImages,
    labels: PixelLabels | None,
    classes: Classes,
    config: RunConfig,
    *,
    round: int,
    device: torch.device,
    precision: torch.dtype,
    progress: Progress,
    watch: Callable[[], float] | None = None,
    team: Team = ALONE,
) -> TrainResult:
    """Train a fresh model in place on all labels so far, or on the masks where `labels` is None."""
    settings = config.train
    size = fitted(settings.size, images.sizes[0])
    source = BatchSource(
        images,
        labels,
        classes,
        config.augment,
        size=size,
        resize=settings.resize,
        batch_size=settings.batch_size,
        seed=config.seed,
        round=round,
        device=device,
        workers=settings.workers,
        team=team,
    )
    total, epochs = source.images_per_epoch * settings.epochs, [0]
    title = f"round {round}: training"
    with progress.phase(title, total) as step, deterministic(config.deterministic), current(device):

        def advance(images: int, loss: float | None) -> None:
            epochs[0] += loss is not None
            word = "" if loss is None else f"epoch {epochs[0]} of {settings.epochs}, loss {loss:.3f}"
            step(images, word)

        try:
            return train(
                model,
                source,
                settings,
                seed=config.seed,
                round=round,
                device=device,
                precision=precision,
                advance=advance,
                watch=watch,
                say=progress.say,
                team=team,
            )
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise Lasting(
                f"There is not enough memory to train at {size[0]}x{size[1]} in batches of {settings.batch_size}: "
                "start another run with a smaller --size or -o train.batch_size."
            ) from error
