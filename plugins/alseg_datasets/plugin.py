"""What the package registers: CamVid and generated shapes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Dataset


def camvid(data: Path) -> Dataset:
    """CamVid with 11 classes: folders train, val, test and trainannot, valannot, testannot."""
    from alseg_datasets.camvid import CamVid

    return CamVid(data)


def shapes(
    train_images: Annotated[int, Between(1, 100_000)] = 60,
    val_images: Annotated[int, Between(0, 100_000)] = 40,
    side: Annotated[int, Between(32, 1024)] = 64,
) -> Dataset:
    """Generated images of common and rare shapes."""
    from alseg_datasets.shapes import Shapes

    return Shapes(train_images, val_images, side)


def shapes_recipe() -> dict[str, Any]:
    """Small and from untrained weights: a learning curve in a minute, without a file or network."""
    return {
        "first_pixels": 2,
        "pixels_per_round": 2,
        "budget": 10,
        "model.encoder": "test_resnet.r160_in1k",
        "model.weights": "none",
        "model.channels": 64,
        "train": {"epochs": 30, "batch_size": 10, "learning_rate": 3e-3, "encoder_rate": 1.0},
        "augment": {
            "scale": (0.8, 1.25),
            "jitter": 0.5,
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.02,
            "grayscale": 0.0,
            "blur": 0.0,
        },
    }


@hookimpl
def register_datasets(register: Register) -> None:
    """CamVid and shapes."""
    register("camvid", camvid)
    register("shapes", shapes)


@hookimpl
def register_recipes(register: Register) -> None:
    """What suits the generated shapes."""
    register("shapes", shapes_recipe)
