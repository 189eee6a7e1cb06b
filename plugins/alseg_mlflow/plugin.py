"""A run's metrics, figures and queries in MLflow."""

from __future__ import annotations

from typing import Any

from alseg.hookspecs import hookimpl


@hookimpl
def register_commands(app: Any) -> None:
    """Add what there is."""
