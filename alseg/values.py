"""The values that pass between the core and its plugins.

B batch, C classes, H x W an image's own pixels, n pixels asked of an image. A pixel is an integer
(y, x) of the original image file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Classes:
    """Class names in the order of their mask values 0 to C - 1, one void value, and a colour each."""

    names: tuple[str, ...]
    void: int
    colours: tuple[tuple[int, int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Class name -> mask value."""
        return {name: value for value, name in enumerate(self.names)}


class Question(NamedTuple):
    """One pixel to be labelled, and what the model thought of it (null in a random round).

    y, x: None where somebody is to pick the pixel. audit: drawn at random to measure, never trained on.
    """

    item: str
    image: str
    y: int | None
    x: int | None
    utility: float | None = None
    rank: int | None = None
    guess: str | None = None
    probability: float | None = None
    rival: str | None = None
    entropy: float | None = None
    audit: bool = False


class Answer(NamedTuple):
    """What an oracle says of an item; `name` None means "can't tell" and is never trained on."""

    item: str
    name: str | None
    who: str
    seconds: float | None = None


@dataclass(frozen=True)
class Answers:
    """The answers so far, and whether all that was asked is in."""

    answers: Sequence[Answer]
    complete: bool


START_ITEMS = "start-"  # the items of labels that a run began with


class PixelLabel(NamedTuple):
    """One labelled pixel; `name` None is a pixel that was asked and cannot be labelled.

    audit: it measures the model and is never trained on.
    """

    item: str
    image: str
    y: int
    x: int
    name: str | None
    round: int
    source: str
    who: str
    seconds: float | None = None
    audit: bool = False

    @property
    def is_start(self) -> bool:
        """Whether the run began with it."""
        return self.item.startswith(START_ITEMS)


@dataclass(frozen=True)
class PixelLabels:
    """All pixels that were ever asked: the single truth about labels."""

    labels: tuple[PixelLabel, ...] = ()
    _by_image: dict[str, list[PixelLabel]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_image: dict[str, list[PixelLabel]] = {}
        for label in self.labels:
            by_image.setdefault(label.image, []).append(label)
        object.__setattr__(self, "_by_image", by_image)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[PixelLabel]:
        return iter(self.labels)

    def of(self, image: str) -> list[PixelLabel]:
        """Everything asked of an image, "can't tell" included."""
        return self._by_image.get(image, [])

    def asked(self, image: str) -> np.ndarray:
        """Where an image was asked: int64 [n, 2], (y, x)."""
        return np.array([(p.y, p.x) for p in self.of(image)], np.int64).reshape(-1, 2)

    def trained(self, image: str, classes: Classes) -> tuple[np.ndarray, np.ndarray]:
        """What an image teaches: points int64 [n, 2] as (y, x) and class values int64 [n]."""
        known = [p for p in self.of(image) if p.name is not None and not p.audit]
        points = np.array([(p.y, p.x) for p in known], np.int64).reshape(-1, 2)
        return points, np.array([classes.index[p.name] for p in known if p.name is not None], np.int64)

    def audits(self, measuring: bool = True) -> PixelLabels:
        """Those that measure; or, where `measuring` is False, all others."""
        return PixelLabels(tuple(label for label in self.labels if label.audit == measuring))

    def before(self, round: int) -> PixelLabels:
        """Those of earlier rounds."""
        return PixelLabels(tuple(label for label in self.labels if label.round < round))

    def plus(self, labels: Iterable[PixelLabel]) -> PixelLabels:
        """These and more."""
        return PixelLabels((*self.labels, *labels))


class Taught(NamedTuple):
    """What a training step knows of its batch: B images with n points each.

    images: float32 [B, 3, H, W] in [0, 1]. features: what the model's `encode` gave. logits: float32 [B, C, n] at
    the points. points: [B, n, 2], (y, x) as fractions of height and width. classes: int64 [B, n], below 0
    where a point is none. losses: the cross-entropy at each point, float32 [B, n], 0 where it is none.
    """

    images: Tensor
    features: Any
    logits: Tensor
    points: Tensor
    classes: Tensor
    losses: Tensor


class Prediction(Protocol):
    """What the model thinks of a batch, computed when asked; maps of classes are on the images' own grid."""

    def probabilities(self) -> Tensor:
        """Class probabilities, float32 [B, C, H, W]."""

    def top2(self) -> tuple[Tensor, Tensor]:
        """The highest and second highest probability, float32 [B, H, W] each."""

    def entropy(self) -> Tensor:
        """Entropy of the class probabilities in nats, float32 [B, H, W]; 0 where one class is certain."""

    def predicted(self) -> Tensor:
        """The likeliest class, int64 [B, H, W]."""

    def samples(self, k: int) -> Iterator[Tensor]:
        """k class probabilities float32 [B, C, H, W] that differ by chance; one at a time.

        By dropout, or the first k members of a joint model. Do not keep them all: k maps of a batch may be
        more than the memory holds. Raises UserMistake where the model has neither dropout nor k members.
        """

    def embedding(self) -> Tensor:
        """Features to be compared by their Euclidean distance, float32 [B, D, h, w] on the model's grid.

        Computed at each call; `alseg.grid.sample` gives them at pixels. Raises UserMistake where the model
        has none.
        """

    def term(self, name: str) -> Tensor:
        """What a training term says of each pixel, float32 [B, H, W]; UserMistake where the run has no such term."""


@dataclass(frozen=True)
class PoolBatch:
    """What acquirer and selector both see: a batch of pool images of one size.

    keys: the images' names. size: (H, W). prediction: the model's, lazy. candidates: bool [B, H, W],
    pixels that may be asked. labels: all pixels asked so far. round: from 0. noise: purpose ->
    float64 [B, H, W] uniform in [0, 1), a function of seed, round, purpose, image and pixel alone.
    """

    keys: tuple[str, ...]
    size: tuple[int, int]
    prediction: Prediction
    candidates: Tensor
    labels: PixelLabels
    round: int
    noise: Callable[[str], Tensor]


@dataclass(frozen=True)
class Selection:
    """Chosen pixels of a batch.

    indices: int64 [B, n], y * W + x, best first, padded with -1 where an image has fewer candidates.
    priority: float [B, n], comparable across images; higher is asked first where a budget is shared.
    """

    indices: Tensor
    priority: Tensor
