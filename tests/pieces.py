"""What each registered piece is checked with: options by which it is tiny, and what is no part of its contract.

A piece that is not named here is checked with COMMON, as far as it has such options, and with its own defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conftest import write_camvid
from test_datasets import write_cityscapes, write_voc12

from alseg.pieces import Piece
from alseg.testing import write_tiny_dataset

COMMON: Mapping[str, Mapping[str, Any]] = {
    "model": {"encoder": "test_resnet.r160_in1k", "weights": "none", "channels": 8},
}
TYPICAL = {"acquirer": "margin", "selector": "topk", "model": "deeplabv3plus"}  # what modifiers are wrapped over


@dataclass(frozen=True)
class Tiny:
    """options: the piece's. made: options whose values are written first. more: the check's own keywords.

    slow: left out of `make test`.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Callable[[Path], Path]] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    slow: bool = False


def write_saved(folder: Path) -> Path:
    """A dataset of datasets, saved to disk."""
    import datasets
    from test_hf_dataset import rows, table

    splits = {"train": table(rows(4)), "validation": table(rows(2))}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def write_segformer(folder: Path) -> Path:
    """A checkpoint of transformers."""
    from transformers_networks import write_checkpoint

    return write_checkpoint(folder, "segformer")


TINY: Mapping[tuple[str, str], Tiny] = {
    ("dataset", "camvid"): Tiny(made={"data": write_camvid}),
    ("dataset", "cityscapes"): Tiny(made={"data": write_cityscapes}),
    ("dataset", "voc12"): Tiny(made={"data": write_voc12}),
    ("dataset", "folder"): Tiny(made={"data": write_tiny_dataset}),
    ("dataset", "hf"): Tiny({"classes": ("a", "b", "c", "d")}, {"data": write_saved}),
    ("model", "hf"): Tiny(made={"checkpoint": write_segformer}),
    ("recipe", "hf"): Tiny(more={"settings": {"model.checkpoint": "somewhere"}}),
    ("dataset", "shapes"): Tiny({"train_images": 3, "val_images": 2}),
    ("model", "smp-fpn"): Tiny({"channels": 32}),
    ("model", "smp-dpt"): Tiny({"encoder": "test_vit.r160_in1k", "widths": (8, 8), "fusion_channels": 8}),
    ("model", "ensemble"): Tiny({"members": 2}),
    ("acquirer", "random"): Tiny(more={"uncertainty": False}),
    ("executor", "local"): Tiny({"jobs": 1}, slow=True),
    ("executor", "ray"): Tiny(slow=True),
}


def tiny(piece: Piece) -> Tiny:
    """How a piece is checked."""
    return TINY.get((piece.kind, piece.name), Tiny())


def called(piece: Piece) -> str:
    """What a piece is asked for by: with its distribution, and a modifier over a typical piece."""
    name = f"{piece.plugin.distribution}:{piece.name}"
    return f"{name}:{TYPICAL[piece.kind]}" if piece.is_modifier else name


def options_of(piece: Piece, whole: Piece, folder: Path) -> dict[str, Any]:
    """Options of a piece, with what it wraps, by which it is tiny."""
    known, stated = whole.options(), tiny(piece)
    common = {name: value for name, value in COMMON.get(piece.kind, {}).items() if name in known}
    return {**common, **stated.options, **{name: write(folder / name) for name, write in stated.made.items()}}
