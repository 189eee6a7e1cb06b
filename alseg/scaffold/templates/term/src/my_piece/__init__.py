"""The training term `my-piece`: alseg run -o terms=my-piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from alseg import Term

ALSEG_API_VERSION = 1


def my_piece(weight: Annotated[float, Between(0)] = 0.1) -> Term:
    """Keeps predictions at the labelled points from being too sure: minus `weight` times their mean entropy."""
    # model and classes are given by alseg where a factory takes them; the rest are options: -o my-piece.weight=0.2
    from my_piece.term import Confidence

    return Confidence(weight)


@hookimpl
def register_terms(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
