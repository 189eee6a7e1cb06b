"""What the package registers: networks of transformers, and image datasets of datasets.

Factories only: the libraries are imported inside them, so that listing the pieces does without them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Dataset, Model


def model(
    classes: int,
    checkpoint: str,
    revision: str = "main",
    weights: Literal["default", "none"] = "default",
    classifier: Literal["new", "stored"] = "new",
) -> Model:
    """A semantic segmentation network of transformers (extra alseg[hf]); checkpoint: a hub's name or a folder."""
    _need("transformers", "The model hf")
    from alseg_hf.loading import load

    return load(classes, checkpoint, revision, weights, classifier)


def dataset(
    path: str | None = None,
    data: Path | None = None,
    subset: str | None = None,
    revision: str | None = None,
    image: str | None = None,
    mask: str = "auto",
    classes: tuple[str, ...] | None = None,
    id2label: Path | None = None,
    void: Annotated[int, Between(-1, 65535)] | None = None,
    reduce_labels: bool = False,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    val_fraction: Annotated[float, Between(0, 0.9)] | None = None,
    key: str | None = None,
) -> Dataset:
    """An image dataset of datasets (extra alseg[hf]): from the hub, or from a folder.

    -o dataset.path=NAME takes one from the hub (dataset.subset and dataset.revision say which); --data DIR one that
    was written by save_to_disk, or a folder of files that load_dataset takes (Parquet, imagefolder).

        dataset.image       the images' column; found where it is called image or is the only one of pictures
        dataset.mask        the masks', pictures or arrays; none: nobody has labelled it
        dataset.train, val, test    the splits' names; without val and test a fifth of train is held out as val
        dataset.key         a column of names; without, a name is the split's and the row's number

    Classes come from --classes road,sky,..., from dataset.id2label, a JSON file {"0": "road", ...}, from the masks' own
    ClassLabel, or from id2label.json beside the data. A mask holds class values; void are 255, negative ones and
    dataset.void; dataset.reduce_labels: 0 is void and the others are one too high, as image processors with
    do_reduce_labels mean it.
    """
    _need("datasets", "The dataset hf")
    from alseg_hf import hub_dataset as found
    from alseg_hf.labels import names_in

    source, tables = found.open_tables(path, data, subset, revision)
    splits = found.chosen_splits(source, tables, {"train": train, "val": val, "test": test})
    features = {name: kind for _, table in splits.values() for name, kind in table.features.items()}
    features |= splits["train"][1].features  # which others may lack, as an unlabelled test split does the masks
    columns = found.chosen_columns(source, features, image, mask, key)
    feature, file = None if columns[1] is None else features[columns[1]], id2label
    if classes is None and file is None and names_in(feature) is None:
        file = found.id2label_of(path, data, revision)
    named = found.chosen_labels(source, feature, file, classes, void, reduce_labels)
    return found.HubDataset(source, splits, columns, named, key, val_fraction)


def recipe() -> dict[str, Any]:
    """How transformers are tuned: SegFormer's rates and schedule (Xie et al., NeurIPS 2021, section 4.1).

    6e-5 for the encoder and ten times that for the head, from a warm-up down to 0. Its AdamW is Adam here, whose
    weight decay is another thing, so there is none.
    """
    return {
        "model": "hf",
        "first_pixels": 10,
        "pixels_per_round": 10,
        "budget": 100,
        "train": {
            "epochs": 50,
            "batch_size": 4,
            "optimizer": "adam",
            "learning_rate": 6e-4,
            "encoder_rate": 0.1,
            "weight_decay": 0.0,
            "schedule": "poly",
            "power": 1.0,
            "warm_up": 2.0,
        },
        "augment": {
            "scale": (0.5, 2.0),
            "flip": 0.5,
            "jitter": 0.5,
            "brightness": 0.125,
            "contrast": 0.5,
            "saturation": 0.5,
            "hue": 0.07,
            "grayscale": 0.0,
            "blur": 0.0,
        },
    }


def _need(library: str, what: str) -> None:
    from alseg.errors import UserMistake

    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserMistake(f"{what} needs the library {error.name or library}: pip install 'alseg[hf]'.") from error


@hookimpl
def register_models(register: Register) -> None:
    """Networks of transformers."""
    register("hf", model)


@hookimpl
def register_datasets(register: Register) -> None:
    """Image datasets of datasets."""
    register("hf", dataset)


@hookimpl
def register_recipes(register: Register) -> None:
    """What suits transformers."""
    register("hf", recipe)
