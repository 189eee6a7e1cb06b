"""What the checks of acquirers and selectors share: a batch and parts of it, what was changed, and other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from alseg import noise
from alseg.engine.predict import ModelPrediction
from alseg.testing.contract import Broken, Inapplicable, require
from alseg.testing.pools import pool_batch, random_probabilities
from alseg.values import PixelLabel, PixelLabels, PoolBatch

T = TypeVar("T")
KEYS = ("a", "b", "c")
SIZE = (9, 12)
LABELS = PixelLabels(tuple(PixelLabel(f"{key}0", key, 1, 2, "ground", 0, "test", "test") for key in KEYS))
MISMATCH = ("same device", "different devices", "Device Propagation")


def three_images(classes: int, device: torch.device | str = "cpu", only: int | None = None) -> PoolBatch:
    """Three images, or one of them alone; half of the pixels are candidates, of the last one a single one."""
    starts = [noise.stream(0, 0, "candidates", key) for key in KEYS]
    free = noise.uniforms(starts, SIZE[0] * SIZE[1]).view(len(KEYS), *SIZE) < 0.5
    free[:, 1, 2] = False  # labelled
    free[-1] = False
    free[-1, 4, 5] = True
    p = random_probabilities(len(KEYS), classes, SIZE)
    part = slice(None) if only is None else slice(only, only + 1)
    return pool_batch(p[part], candidates=free[part], keys=KEYS[part], labels=LABELS, device=device)


def one_pixel(classes: int) -> PoolBatch:
    """An image of one pixel, and it is no candidate any more."""
    p = torch.full((1, classes, 1, 1), 1 / classes)
    return pool_batch(p, candidates=torch.zeros(1, 1, 1, dtype=torch.bool), keys=["a"])


def extremes(classes: int) -> PoolBatch:
    """Image a with ordinary probabilities, b with probabilities 0 and 1, c with all classes alike."""
    p = random_probabilities(3, classes, SIZE)
    p[1] = torch.eye(classes)[torch.arange(SIZE[0] * SIZE[1]) % classes].T.reshape(classes, *SIZE)
    p[2] = 1 / classes
    return pool_batch(p, keys=KEYS)


def seen(batch: PoolBatch, more: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """All tensors that a piece is given, by name."""
    prediction = batch.prediction
    first, second = prediction.top2()
    maps = {"probabilities()": prediction.probabilities(), "predicted()": prediction.predicted()}
    named = {f"batch.prediction.{name}": tensor for name, tensor in maps.items()}
    named |= {"batch.prediction.top2()[0]": first, "batch.prediction.top2()[1]": second}
    return {"batch.candidates": batch.candidates, **named, **(more or {})}


def require_untouched(call: Callable[[], object], tensors: Mapping[str, Tensor]) -> None:
    """Whatever `call` does, the tensors are the same after it, by whatever way they could be written into."""
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    call()
    for name, tensor in tensors.items():
        require(
            torch.equal(before[name], tensor),
            f"it changed {name}, which others read too",
            f"work on a copy, {name}.clone(), or with what makes a new tensor, such as torch.where",
        )


def on_a_gpu(call: Callable[[PoolBatch], T], classes: int) -> T:
    """What `call` gives of a batch on a GPU; without one torch follows devices and shapes and computes nothing.

    Raises Broken where tensors of two devices meet, Inapplicable where there is no GPU and a number would be needed
    to go on.
    """
    try:
        with torch.no_grad():
            if torch.cuda.is_available():
                return call(three_images(classes, "cuda"))
            return _followed(call, (2, classes, *SIZE))
    except Exception as error:
        text = " ".join(str(error).split())
        if any(words in text for words in MISMATCH):
            raise Broken(
                "a tensor that it makes is on the CPU while the batch is on a GPU",
                "make tensors with device=batch.candidates.device, or with zeros_like and its kin",
            ) from error
        if torch.cuda.is_available():
            raise
        raise Inapplicable(f"it cannot be followed without a GPU ({type(error).__name__})") from error


def _followed(call: Callable[[PoolBatch], T], shape: tuple[int, int, int, int]) -> T:
    from torch._subclasses.fake_tensor import FakeTensorMode

    images, classes, height, width = shape
    gpu = torch.device("cuda")
    with FakeTensorMode():
        prediction = ModelPrediction(
            lambda: torch.empty(shape, device=gpu),
            (height, width),
            lambda k: (torch.empty(shape, device=gpu) for _ in range(k)),
            lambda: torch.empty(images, classes + 2, height, width, device=gpu),
            lambda name: torch.empty(images, 1, height, width, device=gpu),
        )
        free = torch.empty(images, height, width, dtype=torch.bool, device=gpu)

        def drawn(purpose: str) -> Tensor:
            return torch.empty(images, height, width, dtype=torch.float64, device=gpu)

        return call(PoolBatch(KEYS[:images], (height, width), prediction, free, LABELS, 1, drawn))
