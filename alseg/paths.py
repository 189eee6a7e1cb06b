"""Paths as people give them."""

from __future__ import annotations

from pathlib import Path


def expanded(path: Path | str) -> Path:
    """With ~ or ~NAME at the front as that user's home; where there is no such user, as for a file ~x.png, as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
