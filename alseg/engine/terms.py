"""Training terms: they live in the model that they are trained with, so that they are stored and loaded with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from alseg.errors import AlsegError, UserMistake
from alseg.protocols import Model, Term, members_of

PLACE = "training_terms"  # the model's attribute, and what their weights' names begin with


def attach(model: Model, terms: Mapping[str, Any]) -> None:
    """Put terms, each an nn.Module with a loss, into a model, by the names that acquirers ask for them by."""
    if members_of(model) != [model]:
        raise UserMistake("Training terms go with one model, not with one that has members: leave out either.")
    if hasattr(model, PLACE):
        raise AlsegError(f"The model {type(model).__name__} has something called {PLACE}, which terms take.")
    setattr(model, PLACE, nn.ModuleDict({_key(name): term for name, term in terms.items()}))


def terms_of(model: Any) -> list[Any]:
    """The terms in a model, each an nn.Module and a `Term`; none where it has none."""
    return list(getattr(model, PLACE, {}).values())


def term_called(model: Any, name: str) -> Term | None:
    """The term of this name in a model."""
    return dict(getattr(model, PLACE, {}).items()).get(_key(name))


def _key(name: str) -> str:
    return name.replace(".", "_")  # torch takes no dot
