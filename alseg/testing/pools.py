"""A batch of the pool with a known prediction, as acquirers and selectors get it in a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alseg import noise
from alseg.calling import in_words
from alseg.engine.predict import ModelPrediction
from alseg.errors import UserMistake
from alseg.values import PixelLabels, PoolBatch

SPREAD = 0.5  # by which the logits of a prediction's samples differ


def pool_batch(
    probabilities: Any = None,
    *,
    candidates: Any = None,
    keys: Sequence[str] | None = None,
    labels: PixelLabels | None = None,
    seed: int = 0,
    round: int = 1,
    device: torch.device | str = "cpu",
) -> PoolBatch:
    """A batch whose prediction has these class probabilities, [B, C, H, W], a tensor or array; 0 and 1 exactly.

    None: two images of 6 x 8 with 3 classes. candidates: bool [B, H, W], all where None. keys: a, b, ... where
    None. The prediction also has `samples` (logits that differ by keyed noise; what is certain stays so),
    `embedding` (the probabilities and where they are, on a grid of half the size) and a `term` of every name,
    higher where the entropy is. An image's numbers depend on its key and its own probabilities alone.
    Raises UserMistake where the probabilities of a pixel are none.
    """
    try:
        p = torch.as_tensor(_plain() if probabilities is None else probabilities, device=device).to(torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of a device that there is not
        raise UserMistake(
            f"pool_batch cannot take these probabilities to {str(device)!r}: {in_words(error)}."
        ) from error
    if p.dim() != 4 or 0 in p.shape or bool((p < 0).any()) or not torch.allclose(p.sum(1), p.new_ones(())):
        raise UserMistake(f"pool_batch takes probabilities [B, C, H, W] whose sum over C is 1, not {list(p.shape)}.")
    keys = tuple(keys) if keys is not None else tuple(_letters(len(p)))
    size = (p.shape[2], p.shape[3])
    free = torch.ones(len(p), *size, dtype=torch.bool) if candidates is None else torch.as_tensor(candidates)
    if len({*keys}) != len(keys):
        raise UserMistake(f"pool_batch takes keys that tell its images apart, not {', '.join(map(str, keys))}.")
    if len(keys) != len(p) or free.shape != (len(p), *size):
        raise UserMistake(f"pool_batch has {len(p)} images of {size[0]}x{size[1]}: keys and candidates must be theirs.")

    def uniform(purpose: str, count: int) -> Tensor:
        return noise.uniforms([noise.stream(seed, round, purpose, key) for key in keys], count, p.device)

    return PoolBatch(
        keys=keys,
        size=size,
        prediction=_prediction(p, uniform),
        candidates=free.to(device=p.device, dtype=torch.bool, copy=True),
        labels=labels or PixelLabels(),
        round=round,
        noise=lambda purpose: uniform(purpose, size[0] * size[1]).unflatten(1, size),
    )


def _prediction(p: Tensor, uniform: Any) -> ModelPrediction:
    classes, height, width = p.shape[1:]

    def samples(k: int) -> Iterator[Tensor]:
        for number in range(k):
            drawn = uniform(f"sample {number}", classes * height * width).view_as(p).float()
            yield p.log() + SPREAD * (2 * drawn - 1)

    def embedding() -> Tensor:
        y, x = (torch.arange(length, device=p.device) / length for length in (height, width))
        maps = torch.cat([p, y[:, None].expand(len(p), 1, -1, width), x.expand(len(p), 1, height, -1)], 1)
        return F.adaptive_avg_pool2d(maps, (-(-height // 2), -(-width // 2)))

    def term(name: str) -> Tensor:
        return torch.special.entr(p).sum(1, keepdim=True)

    return ModelPrediction(p.log, (height, width), samples, embedding, term)


def random_probabilities(
    images: int, classes: int, size: tuple[int, int], purpose: str = "pool", first: int = 0
) -> Tensor:
    """float32 [B, C, H, W], some nearly certain, some not; image i is the same in any batch."""
    starts = [noise.stream(0, 0, purpose, str(first + i)) for i in range(images)]
    logits = noise.uniforms(starts, classes * size[0] * size[1]).float().view(images, classes, *size)
    return (8 * logits - 4).softmax(1)


def _plain() -> Tensor:
    return random_probabilities(2, 3, (6, 8))


def _letters(count: int) -> Iterator[str]:
    return (chr(ord("a") + i) if i < 26 else f"image {i}" for i in range(count))
