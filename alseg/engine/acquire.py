"""Which pixels to ask next, in one batched pass over the pool; only n integers an image come back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alseg import noise
from alseg.engine.checks import refuse_spoilt
from alseg.engine.device import inferring
from alseg.engine.images import DecodedImages, batches_of_one_size, in_threads
from alseg.engine.passes import Draw
from alseg.engine.predict import ModelPrediction, SizeChoice, predict
from alseg.engine.team import ALONE, Team
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
        numbers: Sequence[int] | None = None,
        team: Team = ALONE,
    ) -> None:
        self._images, self._classes, self._labels = images, classes, labels
        self._skip_void, self._seed, self._round = skip_void, seed, round
        self._device, self._batch_size, self._workers = device, batch_size, workers
        self._numbers = range(len(images)) if numbers is None else numbers  # None: all images
        self.team = team

    def batches(self, look: Look | None) -> Iterator[tuple[list[int], PoolBatch]]:
        """Image numbers and what acquirer and selector see of them; look: None before there is a model."""
        places = batches_of_one_size(
            [self._images.sizes[i] for i in self._numbers], self._batch_size, len(self._classes), self._device.type
        )
        groups = [[self._numbers[place] for place in group] for group in self.team.share(places)]
        read = partial(self._read, with_image=look is not None)
        decoded = in_threads(read, [i for group in groups for i in group], self._workers, ahead=16)
        for group in groups:
            parts = [next(decoded) for _ in group]
            keys = tuple(self._images.key(i) for i in group)
            candidates = torch.from_numpy(np.stack([free for _, free in parts])).to(self._device)
            yield (
                group,
                PoolBatch(
                    keys=keys,
                    size=self._images.sizes[group[0]],
                    prediction=(
                        ModelPrediction(_no_logits, self._images.sizes[group[0]])
                        if look is None
                        else look([image for image, _ in parts], Draw(self._seed, self._round, keys))
                    ),
                    candidates=candidates,
                    labels=self._labels,
                    round=self._round,
                    noise=self._noise(keys, self._images.sizes[group[0]]),
                ),
            )

    def _read(self, i: int, with_image: bool) -> tuple[np.ndarray, np.ndarray]:
        return self._images.image(i) if with_image else np.empty(0, np.uint8), self.candidates(i)

    def candidates(self, i: int) -> np.ndarray:
        """Which pixels of image number `i` may be asked, bool [H, W]."""
        mask = self._images.mask(i) if self._skip_void else None
        free = np.ones(self._images.sizes[i], bool) if mask is None else mask != self._classes.void
        asked = self._labels.asked(self._images.key(i))
        free[asked[:, 0], asked[:, 1]] = False
        return free

    def _noise(self, keys: tuple[str, ...], size: tuple[int, int]) -> Callable[[str], Tensor]:
        def draw(purpose: str) -> Tensor:
            starts = [noise.stream(self._seed, self._round, purpose, key) for key in keys]
            return noise.uniforms(starts, size[0] * size[1], self._device).unflatten(1, size)

        return draw


def _no_logits() -> Tensor:
    raise AlsegError("There is no model yet in the first round.")


Proposals = list[list[tuple[float, Question]]]  # by image in the pool's order, each with its priority


def ask_at_random(
    pool: Pool, n: int, advance: Callable[[int], None] = lambda n: None, most: int | None = None
) -> Proposals:
    """The first round: n candidates of each image uniformly; `most` as in ask_model."""

    asked: dict[int, list[tuple[float, Question]]] = {}
    for group, batch in pool.batches(None):
        selection = pick(-batch.noise("first round"), batch.candidates, n)
        rows = zip(group, batch.keys, selection.indices.tolist(), selection.priority.tolist(), strict=True)
        width = batch.size[1]
        for i, key, indices, priorities in rows:
            places = [(p, divmod(index, width)) for index, p in zip(indices, priorities, strict=True) if index >= 0]
            asked[i] = [(priority, Question("", key, y, x)) for priority, (y, x) in places]
        _keep_best(asked, most)
        advance(len(group) * pool.team.size)
    return _together(asked, pool.team)


def _together(asked: dict[int, list[tuple[float, Question]]], team: Team) -> Proposals:
    """All members' proposals in the pool's order."""
    if team.size > 1:
        parts = team.gathered(list(asked.items()))
        asked = {i: [(p, Question(*question)) for p, question in proposals] for part in parts for i, proposals in part}
    return [asked[i] for i in sorted(asked)]


def _keep_best(asked: dict[int, list[tuple[float, Question]]], most: int | None) -> None:
    """Where there are twice too many proposals, drop those of lower priority than the `most`-th."""
    if most is None or sum(map(len, asked.values())) <= 2 * most:
        return
    priorities = sorted((priority for proposals in asked.values() for priority, _ in proposals), reverse=True)
    for i, proposals in asked.items():
        asked[i] = [proposal for proposal in proposals if proposal[0] >= priorities[most - 1]]


def within_budget(
    proposals: Proposals, pixels: int | None, key: Callable[[str], float] = lambda place: 0.0
) -> list[Question]:
    """All that is proposed, or the `pixels` of highest priority over the pool.

    key: of "image, y, x", the lower first where priorities are equal; else the earlier image.
    """
    flat = [(priority, question) for image in proposals for priority, question in image]
    if pixels is None or len(flat) <= pixels:
        return [question for _, question in flat]
    order = sorted(
        (-priority, key(f"{question.image}, {question.y}, {question.x}"), place)
        for place, (priority, question) in enumerate(flat)
    )
    return [flat[place][1] for place in sorted(place for _, _, place in order[:pixels])]


class View(NamedTuple):
    """What a model thinks of an image: the likeliest class, int64 [H, W], and the utility, float [H, W]."""

    number: int
    predicted: Tensor
    utility: Tensor


@torch.no_grad()
def views(
    pool: Pool, model: Model, acquirer: Acquirer, *, size: SizeChoice, device: torch.device, precision: torch.dtype
) -> Iterator[View]:
    """What a model thinks of the images of a pool, for pictures."""

    def look(images: list[np.ndarray], draw: Draw) -> ModelPrediction:
        return predict(quick, images, size, device, precision, draw)

    with inferring(model, precision) as quick:
        for group, batch in pool.batches(look):
            yield from map(View, group, batch.prediction.predicted(), acquirer(batch))


@torch.no_grad()
def ask_model(
    pool: Pool,
    n: int,
    model: Model,
    acquirer: Acquirer,
    selector: Selector,
    classes: Classes,
    *,
    size: SizeChoice,
    device: torch.device,
    precision: torch.dtype,
    advance: Callable[[int], None] = lambda n: None,
    most: int | None = None,
) -> Proposals:
    """Later rounds: the acquirer's utility, the selector's n, best first.

    most: how many over the pool will be asked; proposals that cannot be among them are let go early.
    """
    asked: dict[int, list[tuple[float, Question]]] = {}

    def look(images: list[np.ndarray], draw: Draw) -> ModelPrediction:
        return predict(quick, images, size, device, precision, draw)

    with inferring(model, precision) as quick:
        for group, batch in pool.batches(look):
            utility = acquirer(batch)
            selection = selector(batch, utility, n)
            for i, questions in zip(group, _questions(batch, utility, selection, classes), strict=True):
                asked[i] = questions
            _keep_best(asked, most)
            advance(len(group) * pool.team.size)
    return _together(asked, pool.team)


def _questions(batch: PoolBatch, utility: Tensor, selection: Selection, classes: Classes) -> Proposals:
    """What is asked and what the model thought there; the only copy to the host."""
    if selection.indices.shape[1] == 0:
        return [[] for _ in batch.keys]
    flat = selection.indices.clamp(min=0)  # [B, n]
    chances = batch.prediction.probabilities().flatten(2).gather(2, flat[:, None].expand(-1, len(classes), -1))
    best, order = chances.topk(min(2, len(classes)), 1)  # [B, 2, n]
    numbers = torch.stack(
        [
            selection.priority.double(),
            utility.flatten(1).gather(1, flat).double(),
            best[:, 0].double(),
            torch.special.entr(chances).sum(1).double(),
        ]
    ).tolist()
    guesses = order.tolist()
    proposals: Proposals = [[] for _ in batch.keys]
    for image, indices in enumerate(selection.indices.tolist()):
        for rank, index in enumerate(indices):
            if index < 0:
                continue
            priority, worth, chance, entropy = (number[image][rank] for number in numbers)
            if math.isnan(chance):
                refuse_spoilt(batch)
            names = [classes.names[guess[rank]] for guess in guesses[image]]
            y, x = divmod(index, batch.size[1])
            rival = names[1] if len(names) > 1 else None
            question = Question("", batch.keys[image], y, x, worth, rank, names[0], chance, rival, entropy)
            proposals[image].append((priority, question))
    return proposals
