"""A dataset and a model of next to no size: plain functions, and a plugin file that registers both.

Nothing is drawn by chance: the images follow from their numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import alseg
from alseg.options import Between
from alseg.testing.calls import refuses_unfit

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.testing.tiny_images import TinyDataset
    from alseg.testing.tiny_models import TinyModel

NAME = "alseg-tiny"  # what all are registered as
PLUGIN = Path(__file__)


@refuses_unfit
def tiny_dataset(
    train_images: Annotated[int, Between(1, 1000)] = 4,
    val_images: Annotated[int, Between(0, 1000)] = 2,
    height: Annotated[int, Between(16, 1024)] = 64,
    width: Annotated[int, Between(16, 1024)] = 64,
    same_size: bool = True,
) -> TinyDataset:
    """A few generated images of ground, sky and a disc, with a void border; a `Dataset` in memory.

    same_size: else every second image is 8 pixels higher and narrower.
    """
    from alseg.testing.tiny_images import TinyDataset

    return TinyDataset({"train": train_images, "val": val_images}, (height, width), same_size)


def write_tiny_dataset(folder: Path | str, **options: Any) -> Path:
    """The images of `tiny_dataset` with these options as a folder on the disk, which is made.

    FOLDER/train and val hold PNG images, trainannot and valannot masks of the same names (class values, void 255),
    classes.toml the classes' names, colours and void.
    """
    from alseg.testing.tiny_images import write

    return write(tiny_dataset(**options), Path(folder))


@refuses_unfit
def tiny_model(classes: Annotated[int, Between(1)] = 3, channels: Annotated[int, Between(1, 1024)] = 8) -> TinyModel:
    """A `Model` of three convolutions with everything a model may have: decode_at, embedding, dropout."""
    from alseg.testing.tiny_models import TinyModel

    return TinyModel(classes, channels)


def tiny_recipe() -> dict[str, Any]:
    """Two labels an image and a round, two epochs, no augmentation."""
    return {
        "first_pixels": 2,
        "pixels_per_round": 2,
        "budget": 4,
        "train": {"epochs": 2, "batch_size": 2, "learning_rate": 1e-2, "encoder_rate": 1.0, "workers": 0},
        "augment": {"jitter": 0.0, "grayscale": 0.0, "blur": 0.0},
        "device": "cpu",
        "report": False,
        "cache": "none",
    }


@alseg.hookimpl
def register_datasets(register: Register) -> None:
    """The tiny dataset."""
    register(NAME, tiny_dataset)


@alseg.hookimpl
def register_models(register: Register) -> None:
    """The tiny model."""
    register(NAME, tiny_model)


@alseg.hookimpl
def register_recipes(register: Register) -> None:
    """What suits both."""
    register(NAME, tiny_recipe)
