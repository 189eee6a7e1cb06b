"""Building a run's model: afresh for a training, or with the weights that a round stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alseg.config import RunConfig
from alseg.engine.calls import groups_of, origin_of, tell
from alseg.engine.device import seeded
from alseg.engine.terms import PLACE, attach
from alseg.engine.weights import weights_of
from alseg.errors import AlsegError, UserMistake
from alseg.plugins import Registry
from alseg.protocols import Model
from alseg.several import Choice
from alseg.store import RunFolder


class Models:
    """Builds the models of a run, with the terms that they are trained on."""

    def __init__(self, registry: Registry, config: RunConfig, classes: int, device: torch.device) -> None:
        self._registry, self._classes, self._device = registry, classes, device
        self._choice, self._seed, self._terms = config.model, config.seed, config.terms

    def fresh(self, round: int = 0, *, pretrained: bool = True) -> Model:
        """A model as a training begins with; its initial weights depend on seed and round alone."""
        name, options = self._choice.name, dict(self._choice.options)
        if not pretrained and "weights" in options:
            options["weights"] = "none"  # stored weights replace them all
        piece = self._registry.find("model", name)
        with seeded(self._device, self._seed, round, "initial weights"):
            model = piece.build(options, classes=self._classes)
        if not isinstance(model, nn.Module) or not isinstance(model, Model):
            raise AlsegError(f"{piece.described()} is no nn.Module with encode, decode and parameter_groups.")
        tell(model, piece.described(), self._classes)
        if pretrained:  # it is to be trained; a stored one may wait for its weights
            weights_of(model)
            groups_of(model)
            origin_of(model)
        if self._terms:
            attach(model, self._built_terms(model, round))
        return model.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def stored(self, folder: RunFolder, round: int) -> tuple[Model, dict[str, Any]]:
        """The model that a round trained, and the facts about its training."""
        model = self.fresh(pretrained=False)
        assert isinstance(model, nn.Module)
        held = tuple(f"{PLACE}.{name}." for name in getattr(model, PLACE, {}))
        return model, folder.read_model(
            round, model, spare=lambda name: name.startswith(f"{PLACE}.") and not name.startswith(held)
        )

    def _built_terms(self, model: Model, round: int) -> dict[str, Any]:
        """By the names that acquirers ask for them by, whoever's they are."""
        terms: dict[str, Any] = {}
        for choice in self._terms:
            name = self._registry.find("term", choice.name).own_name
            if name in terms:
                raise UserMistake(f"Two training terms are called {name!r}: take one of them.")
            terms[name] = self._term(choice, model, round)
        return terms

    def _term(self, choice: Choice, model: Model, round: int) -> Any:
        piece = self._registry.find("term", choice.name)
        with seeded(self._device, self._seed, round, f"initial weights of {choice.name}"):
            term = piece.build(choice.options, classes=self._classes, model=model)
        if not isinstance(term, nn.Module) or not callable(getattr(term, "loss", None)):
            raise AlsegError(f"{piece.described()} is no nn.Module with a loss.")
        tell(term, piece.described())
        weights_of(term)
        return term
