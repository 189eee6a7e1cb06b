"""The hooks a plugin may implement.

`register(name, factory)` adds a piece: the keyword parameters of `factory`, their types and defaults, are its options.
Torch is imported inside it. With a parameter `acquirer` (or `new_acquirer`, what builds one), it modifies acquirers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("alseg")
hookimpl = pluggy.HookimplMarker("alseg")

Register = Callable[[str, Callable[..., Any]], None]


@hookspec
def register_datasets(register: Register) -> None:
    """Add datasets; a factory gives a `Dataset`.

    Its docstring is what `alseg datasets` prints: a line on what it is, then where it is had and its layout.
    """


@hookspec
def register_models(register: Register) -> None:
    """Add models; a factory takes `classes` (their number) beside its options and gives a `Model`."""


@hookspec
def register_acquirers(register: Register) -> None:
    """Add acquirers; a factory gives an `Acquirer`."""


@hookspec
def register_selectors(register: Register) -> None:
    """Add selectors; a factory gives a `Selector`."""


@hookspec
def register_oracles(register: Register) -> None:
    """Add oracles; a factory may take `images`, `classes`, `seed` and `run` and gives an `Oracle`."""


@hookspec
def register_terms(register: Register) -> None:
    """Add training terms; a factory may take `model` and `classes` and gives a `Term`."""


@hookspec
def register_trackers(register: Register) -> None:
    """Add trackers; a factory gives an object whose methods are life-cycle hooks (`@hookimpl`), called in a run."""


@hookspec
def register_recipes(register: Register) -> None:
    """Add recipes; a factory gives a mapping from dotted settings to values."""


@hookspec
def register_executors(register: Register) -> None:
    """Add what carries out the runs of a comparison; a factory gives an `Executor`."""


@hookspec
def register_commands(app: Any) -> None:
    """Add commands to the Typer application."""


@hookspec
def run_started(folder: str, settings: dict[str, Any]) -> None:
    """A run begins or goes on: its folder and every resolved setting."""


@hookspec
def round_finished(folder: str, record: dict[str, Any]) -> None:
    """A round is recorded: the run's folder and the line written to rounds.jsonl."""


@hookspec
def run_finished(folder: str, records: list[dict[str, Any]]) -> None:
    """A run is complete: its folder and all its rounds' lines."""


@hookspec
def run_stopped(folder: str, reason: str, message: str) -> None:
    """A run ends before it is complete: `reason` is interrupted, waiting (for answers), failed or asked."""
