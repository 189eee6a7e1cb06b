"""The architectures of segmentation-models-pytorch as models."""

from __future__ import annotations

from alseg.hookspecs import Register, hookimpl


@hookimpl
def register_models(register: Register) -> None:
    """Add what there is."""
