"""Frozen foundation features from timm with a light head, and the recipe that trains it.

Factories only: torch is imported inside them, so that listing the pieces does without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Model


def frozen(
    classes: int,
    encoder: str = "vit_small_patch14_dinov2.lvd142m",
    weights: Literal["default", "none"] | Path = "default",
    layers: tuple[int, ...] | None = None,
    scale: Annotated[float, Between(0.1, 8)] = 1.0,
    head: Literal["linear", "bn-linear", "mlp"] = "bn-linear",
    hidden: Annotated[int, Between(1, 65536)] = 256,
    dropout: Annotated[float, Between(0, 0.99)] = 0.1,
    memory: Annotated[int, Between(0)] = 2 * 2**30,
    cache: str = "auto",
    stored: Literal["whole", "head"] = "whole",
) -> Model:
    """A light head on frozen features of any timm network, each image's computed once and kept.

    layers: blocks of a transformer, maps of a convolutional network, counted from 0 or from the end by -1; none:
    the last, of a convolutional network the last three. scale: of the image before the encoder sees it. hidden:
    channels of the mlp. memory: bytes of features kept in memory; cache: the folder where they are kept on disk,
    auto (the user's cache folder) or none. stored: what a round's model file holds of the encoder.
    """
    from alseg_frozen.backbone import Backbone
    from alseg_frozen.cache import features_folder, store_of
    from alseg_frozen.models import FrozenModel

    backbone = Backbone(encoder, str(weights), layers, scale, whole=stored == "whole")
    return FrozenModel(backbone, classes, head, hidden, dropout, store_of(memory, features_folder(cache)))


def recipe() -> Mapping[str, Any]:
    """A head on frozen features: no augmentation, so that each image's features are computed once."""
    return {
        "model": "frozen",
        "train": {
            "epochs": 20,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 3e-3,
            "weight_decay": 1e-4,
            "schedule": "poly",
            "power": 0.9,
            "decode": "points",  # exact, and the norm learns from cells of the whole image
            "cuda_graph": False,  # features are looked up, which cannot be recorded
        },
        "augment": {"scale": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0},
    }


@hookimpl
def register_models(register: Register) -> None:
    """A head on frozen features."""
    register("frozen", frozen)


@hookimpl
def register_recipes(register: Register) -> None:
    """How it is trained."""
    register("frozen", recipe)
