"""Which pixels to ask next, in one batched pass over the pool; only n integers an image come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from alseg import noise
from alseg.engine.device import mode
from alseg.engine.images import DecodedImages, batches_of_one_size, in_threads
from alseg.engine.passes import Draw
from alseg.engine.predict import ModelPrediction, predict
from alseg.errors import AlsegError
from alseg.protocols import Acquirer, Model, Selector
from alseg.ranking import pick
from alseg.values import Classes, PixelLabels, PoolBatch, Question, Selection

Look = Callable[[list[np.ndarray], Draw], ModelPrediction]  # images of one size -> what a model thinks of them


class Pool:
    """The images that may be asked, in batches of one size, each with its candidates."""

    def __init__(
        self,
        images: DecodedImages,
        classes: Classes,
        labels: PixelLabels,
        *,
        skip_void: bool,
        seed: int,
        round: int,
        device: torch.device,
        batch_size: int,
        workers: int = 0,
    ) -> None:
        self._images, self._classes, self._labels = images, classes, labels
        self._skip_void, self._seed, self._round = skip_void, seed, round
        self._device, self._batch_size, self._workers = device, batch_size, workers

    def batches(self, look: Look) -> Iterator[tuple[list[int], PoolBatch]]:
        """Image numbers and what acquirer and selector see of them."""
        groups = batches_of_one_size(self._images.sizes, self._batch_size)
        decoded = in_threads(self._read, [i for group in groups for i in group], self._workers, ahead=16)
        for group in groups:
            parts = [next(decoded) for _ in group]
            keys = tuple(self._images.key(i) for i in group)
            candidates = torch.from_numpy(np.stack([free for _, free in parts])).to(self._device)
            yield (
                group,
                PoolBatch(
                    keys=keys,
                    size=self._images.sizes[group[0]],
                    prediction=look([image for image, _ in parts], Draw(self._seed, self._round, keys[0])),
                    candidates=candidates,
                    labels=self._labels,
                    round=self._round,
                    noise=self._noise(keys, self._images.sizes[group[0]]),
                ),
            )

    def _read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        image, mask = self._images.image(i), self._images.mask(i) if self._skip_void else None
        free = np.ones(image.shape[:2], bool) if mask is None else mask != self._classes.void
        asked = self._labels.asked(self._images.key(i))
        free[asked[:, 0], asked[:, 1]] = False
        return image, free

    def _noise(self, keys: tuple[str, ...], size: tuple[int, int]) -> Callable[[str], Tensor]:
        def draw(purpose: str) -> Tensor:
            starts = [noise.stream(self._seed, self._round, purpose, key) for key in keys]
            return noise.uniforms(starts, size[0] * size[1], self._device).unflatten(1, size)

        return draw


def ask_at_random(pool: Pool, n: int, advance: Callable[[int], None] = lambda n: None) -> list[list[Question]]:
    """The first round: n candidates of each image uniformly. Questions by image, in the pool's order."""

    def no_logits() -> Tensor:
        raise AlsegError("There is no model yet in the first round.")

    def nothing(images: list[np.ndarray], draw: Draw) -> ModelPrediction:
        return ModelPrediction(no_logits, (images[0].shape[0], images[0].shape[1]))

    asked: dict[int, list[Question]] = {}
    for group, batch in pool.batches(nothing):
        selection = pick(-batch.noise("first round"), batch.candidates, n)
        for i, key, row in zip(group, batch.keys, selection.indices.tolist(), strict=True):
            width = batch.size[1]
            asked[i] = [Question("", key, index // width, index % width) for index in row if index >= 0]
        advance(len(group))
    return [asked[i] for i in sorted(asked)]


@torch.no_grad()
def ask_model(
    pool: Pool,
    n: int,
    model: Model,
    acquirer: Acquirer,
    selector: Selector,
    classes: Classes,
    *,
    size: tuple[int, int] | None,
    device: torch.device,
    precision: torch.dtype,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[Question]]:
    """Later rounds: the acquirer's utility, the selector's n. Questions by image, best first."""
    asked: dict[int, list[Question]] = {}

    def look(images: list[np.ndarray], draw: Draw) -> ModelPrediction:
        return predict(model, images, size, device, precision, draw)

    with mode(model, False):  # type: ignore[arg-type]
        for group, batch in pool.batches(look):
            utility = acquirer(batch)
            _check_utility(batch, utility)
            selection = selector(batch, utility, n)
            _check_selection(batch, selection, n)
            for i, questions in zip(group, _questions(batch, utility, selection, classes), strict=True):
                asked[i] = questions
            advance(len(group))
    return [asked[i] for i in sorted(asked)]


def _questions(batch: PoolBatch, utility: Tensor, selection: Selection, classes: Classes) -> list[list[Question]]:
    """What is asked and what the model thought there; the only copy to the host."""
    flat = selection.indices.clamp(min=0)
    picked = batch.prediction.probabilities().flatten(2).gather(2, flat[:, None].expand(-1, len(classes), -1))
    best, order = picked.topk(min(2, len(classes)), 1)  # [B, 2, n]
    utilities = utility.flatten(1).gather(1, flat).tolist()
    rows = zip(selection.indices.tolist(), utilities, best.tolist(), order.tolist(), strict=True)
    width = batch.size[1]
    questions = []
    for key, (indices, worths, chances, guesses) in zip(batch.keys, rows, strict=True):
        questions.append(
            [
                Question(
                    item="",
                    image=key,
                    y=index // width,
                    x=index % width,
                    utility=worths[rank],
                    rank=rank,
                    guess=classes.names[guesses[0][rank]],
                    probability=chances[0][rank],
                    rival=classes.names[guesses[1][rank]] if len(classes) > 1 else None,
                )
                for rank, index in enumerate(indices)
                if index >= 0
            ]
        )
    return questions


def _check_utility(batch: PoolBatch, utility: Tensor) -> None:
    wanted = (len(batch.keys), *batch.size)
    if tuple(utility.shape) != wanted or not utility.is_floating_point():
        raise AlsegError(
            f"The acquirer gave {utility.dtype} {list(utility.shape)} for {batch.keys[0]} and others; it must "
            f"give a float tensor {list(wanted)}."
        )
    if utility.device != batch.candidates.device:
        raise AlsegError(f"The acquirer gave a tensor on {utility.device}; it must stay on {batch.candidates.device}.")
    if bool(utility.isnan().any()):
        row = int(utility.isnan().flatten(1).any(1).nonzero()[0])
        raise AlsegError(f"The acquirer gave NaN for the image {batch.keys[row]}; utilities must be numbers.")


def _check_selection(batch: PoolBatch, selection: Selection, n: int) -> None:
    indices = selection.indices
    count = batch.size[0] * batch.size[1]
    if indices.dim() != 2 or len(indices) != len(batch.keys) or indices.shape[1] > n:
        raise AlsegError(f"The selector gave {list(indices.shape)}; it must give at most {n} indices an image.")
    if int(indices.max()) >= count or int(indices.min()) < -1:
        raise AlsegError(f"The selector gave an index outside an image of {count} pixels.")
    chosen = indices >= 0
    free = batch.candidates.flatten(1).gather(1, indices.clamp(min=0))
    ordered = indices.sort(1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool((chosen & ~free).any()) or bool(twice.any()):
        raise AlsegError("The selector chose a pixel that is no candidate, or one pixel twice.")
