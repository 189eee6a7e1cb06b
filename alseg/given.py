"""What the core gives factories beside their options, where they take it: one class a kind, a field an argument."""

from __future__ import annotations

from typing import NamedTuple

from alseg.protocols import Images, Model
from alseg.values import Classes


class ToModel(NamedTuple):
    """A model's factory."""

    classes: int  # how many there are


class ToOracle(NamedTuple):
    """An oracle's factory."""

    images: Images  # the pool, whose arrays cannot be written to
    classes: Classes  # their names and the void value
    seed: int  # the run's
    run: str  # a name that no other run has, the same whenever this one goes on


class ToTerm(NamedTuple):
    """A training term's factory."""

    model: Model  # which it is trained with
    classes: int  # how many there are


FACTORIES: dict[str, type] = {"model": ToModel, "oracle": ToOracle, "term": ToTerm}
