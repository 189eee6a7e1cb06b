"""What is kept of a training's losses on the device, so that whoever spoils them can be named at an epoch's end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alseg.engine.calls import term_parameters, told
from alseg.errors import AlsegError, UserMistake


class Losses:
    """The first step's loss, and of an epoch each step's: of the labels and of each term."""

    def __init__(self, model: Any, terms: Sequence[Any], round: int) -> None:
        self._model, self._terms, self._round = model, terms, round
        self._first: Tensor | None = None
        self._begun = False  # whether the terms' first losses were looked at
        self._parts: list[Tensor] = []  # [1 + terms] a step, only where there are terms
        self._reached: set[int] = set()  # terms whose loss had a gradient

    def add_step(self, loss: Tensor) -> None:
        """A step's whole loss, detached; a later step may overwrite it."""
        if self._first is None:
            self._first = loss.clone()

    def add_parts(self, labels: Tensor, terms: Sequence[Tensor]) -> None:
        """What a step's loss is made of; AlsegError for a term whose first loss is a constant, but for 0.

        A 0 without gradient is how a term says that a batch, or the beginning of a training, has nothing for it.
        """
        if not self._begun:
            self._begun = True
            for number, term in enumerate(terms):
                # only a loss without gradient is looked at, in this step alone: float waits for the device
                if not term.requires_grad and self._lost(number) and (value := float(term)):
                    raise self._without_gradient(number, f"of {value:.3g} without gradient in the first step")
        self._parts.append(torch.stack([part.detach().float() for part in (labels, *terms)]))
        self._reached |= {number for number, term in enumerate(terms) if term.requires_grad}

    def end_epoch(self, epoch: int, loss: float) -> None:
        """Begin anew; where the mean loss is not finite, an error names who was the first to spoil it."""
        if not math.isfinite(loss):
            raise self._error(epoch, loss)
        self._parts.clear()

    def end(self) -> None:
        """AlsegError for a term that never had a gradient, and does nothing else."""
        for number in range(len(self._terms)):
            if number not in self._reached and self._lost(number):
                raise self._without_gradient(number, "without gradient in every step")

    def _lost(self, number: int) -> str | None:
        """What a term fails to do by a loss without gradient; None where it may do all it does after a step."""
        term = self._terms[number]
        trainable = sum(p.numel() for p in term_parameters(term) if p.requires_grad)
        if trainable:
            return f"its {trainable} numbers learn nothing"
        return None if hasattr(term, "after_step") else "it changes nothing"

    def _without_gradient(self, number: int, how: str) -> AlsegError:
        return AlsegError(
            f"{told(self._terms[number]).name} gave a loss {how}, so that {self._lost(number)}: leave out detach, "
            ".item() and torch.no_grad on the way to it."
        )

    def _error(self, epoch: int, loss: float) -> AlsegError:
        if self._parts:
            sound = torch.stack(self._parts).isfinite().cpu()
            step = next((step for step, row in enumerate(sound) if not row.all()), None)
            if step is not None and bool(sound[step, 0]):
                number = int((~sound[step, 1:]).nonzero()[0])
                value = float(self._parts[step][1 + number])
                return AlsegError(
                    f"{told(self._terms[number]).name} gave a loss of {value} in step {step + 1} of epoch {epoch + 1} "
                    f"of round {self._round}, where the labels' own was finite: look for a division by 0, log or sqrt."
                )
        if epoch == 0 and self._first is not None and not math.isfinite(float(self._first)):
            return AlsegError(
                f"{told(self._model).name} has a loss of {float(self._first)} before its first step in round "
                f"{self._round}: its logits must be finite; look at its weights, and for a division by 0 or log."
            )
        without = f", or without {', '.join(_short(term) for term in self._terms)}" if self._terms else ""
        return UserMistake(
            f"The training of round {self._round} diverged in epoch {epoch + 1}, its loss is {loss}: start another "
            f"run with a lower train.learning_rate{without}."
        )


def _short(term: Any) -> str:
    name = told(term).name
    return name[0].lower() + name[1:]
