"""The recipe `my-piece`: alseg run --dataset folder --data DIR --classes a,b --recipe my-piece."""

from __future__ import annotations

from typing import Any

from alseg import hookimpl

ALSEG_API_VERSION = 1


def my_piece() -> dict[str, Any]:
    """Short trainings, few pixels. What is not set here keeps its default."""
    return {
        "acquirer": "margin",
        "selector": "topk-then-uniform",
        "first_pixels": 5,
        "pixels_per_round": 5,
        "budget": 25,
        "train": {"epochs": 20, "batch_size": 4, "schedule": "poly"},
    }


@hookimpl
def register_recipes(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
