"""Semantic segmentation models of transformers, and image datasets of datasets."""

from __future__ import annotations

from alseg.hookspecs import Register, hookimpl


@hookimpl
def register_models(register: Register) -> None:
    """Add what there is."""
