"""Frozen foundation features from timm with a light head."""

from __future__ import annotations

from alseg.hookspecs import Register, hookimpl


@hookimpl
def register_models(register: Register) -> None:
    """Add what there is."""
