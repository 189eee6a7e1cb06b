"""The model `my-piece`: alseg run --model my-piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from alseg import Model

ALSEG_API_VERSION = 1


def my_piece(classes: int, width: Annotated[int, Between(1)] = 32) -> Model:
    """Four convolutions of so many channels, at an eighth of the image's size."""
    # classes, their number, is given by alseg; the rest are options: -o model.width=64
    from my_piece.network import Network

    return Network(classes, width)


@hookimpl
def register_models(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
