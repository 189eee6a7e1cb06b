"""Building a run's model: afresh for a training, or with the weights that a round stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alseg.config import Choice
from alseg.engine.device import seeded
from alseg.errors import AlsegError
from alseg.plugins import Piece
from alseg.protocols import Model
from alseg.store import RunFolder


def fresh_model(
    piece: Piece,
    choice: Choice,
    classes: int,
    device: torch.device,
    *,
    seed: int = 0,
    round: int = 0,
    pretrained: bool = True,
) -> Model:
    """A model as a training begins with; its initial weights depend on seed and round alone."""
    options = dict(choice.options)
    if not pretrained and "weights" in options:
        options["weights"] = "none"  # stored weights replace them all
    with seeded(device, seed, round, "initial weights"):
        model = piece.build(options, classes=classes)
    if not isinstance(model, nn.Module) or not isinstance(model, Model):
        raise AlsegError(f"The model {choice.name!r} is no nn.Module with encode, decode and parameter_groups.")
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def stored_model(
    folder: RunFolder, round: int, piece: Piece, choice: Choice, classes: int, device: torch.device
) -> tuple[Model, dict[str, Any]]:
    """The model that a round trained, and the facts about its training."""
    model = fresh_model(piece, choice, classes, device, pretrained=False)
    assert isinstance(model, nn.Module)
    return model, folder.read_model(round, model)
