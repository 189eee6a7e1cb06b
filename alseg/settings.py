"""The groups of a run's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from alseg.options import Between, Longer, Size

Probability = Annotated[float, Between(0, 1)]
Count = Annotated[int, Between(1)]
PassSize = Size | Longer | Literal["own"] | None


@dataclass(frozen=True)
class TrainSettings:
    """How the model is trained in each round."""

    size: Size | None = None  # of the crop; None: the size of the first training image
    resize: Size | Longer | None = None  # of the image at scale 1, before the crop; None: the crop's
    epochs: Count = 50
    batch_size: Annotated[int, Between(2)] = 4
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Between(1e-12, 1e3)] = 5e-4
    encoder_rate: Annotated[float, Between(0, 1e3)] = 0.1  # times learning_rate
    momentum: Probability = 0.9  # of sgd
    weight_decay: Annotated[float, Between(0, 1e3)] = 2e-4
    schedule: Literal["constant", "multistep", "poly"] = "multistep"
    milestones: Annotated[tuple[float, ...], Between(0, 1)] = (0.4, 0.8)  # of the epochs
    decay: Annotated[float, Between(0, 1)] = 0.1  # multistep: factor at each milestone
    power: Annotated[float, Between(0, 10)] = 0.9  # of poly
    warm_up: Annotated[float, Between(0, 1e6)] = 0.0  # epochs in which the rate rises from 0
    decode: Literal["points", "dense"] = "points"  # where the decoder is computed; points: by a model with decode_at
    cuda_graph: bool = True  # on a GPU: record a step once and replay it
    fused_norms: bool = True  # on a GPU: a batch norm and its activation in few kernels
    workers: Annotated[int, Between(0, 256)] = 2  # threads that decode images


@dataclass(frozen=True)
class Augmentation:
    """Random changes of each training image (factors, probabilities), and how labels follow them."""

    scale: Annotated[tuple[float, float], Between(0.05, 20)] = (0.5, 2.0)
    flip: Probability = 0.5
    jitter: Probability = 0.8
    brightness: Annotated[float, Between(0, 10)] = 0.8
    contrast: Annotated[float, Between(0, 10)] = 0.8
    saturation: Annotated[float, Between(0, 10)] = 0.8
    hue: Annotated[float, Between(0, 0.5)] = 0.2
    grayscale: Probability = 0.2
    blur: Probability = 0.5
    blur_sigma: Annotated[tuple[float, float], Between(0.01, 100)] = (0.1, 2.0)  # pixels of the crop
    fill: Annotated[tuple[float, float, float], Between(0, 1)] = (0.485, 0.456, 0.406)
    labels: Literal["exact", "nearest"] = "exact"


@dataclass(frozen=True)
class PassSettings:
    """A pass over images without training.

    size "own" is each image's own; none is the image's own for queries, and as for queries in evaluation.
    """

    size: PassSize = None
    batch_size: Count = 32  # fewer where their maps would be large: alseg.engine.images.MOST


# how a training is computed, which changes no result
COMPUTING = frozenset({"train.workers", "train.cuda_graph", "train.fused_norms"})


@dataclass(frozen=True)
class TrustSettings:
    """Answers that are asked for twice, where people answer, and pixels that only measure."""

    overlap: Probability = 0.0  # share of the questions that `voters` people answer each
    voters: Annotated[int, Between(2, 100)] = 2
    again: Probability = 0.0  # share that is asked again, blind, at the end of a round
    audit: Annotated[int, Between(0, 10**6)] = 0  # random pixels a round over the pool, never trained on
    blind: Probability = 0.0  # share that is asked without the model's guess in sight
