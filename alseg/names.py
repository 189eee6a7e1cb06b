"""Nearest names, for messages about unknown ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """ "; did you mean a, b?" with the nearest of `known`, or all of them where there are few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?".rstrip("?")
    if 0 < len(names) <= 12:
        return f"; there are {', '.join(names)}"
    return ""
