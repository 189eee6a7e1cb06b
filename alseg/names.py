"""Names in messages: the nearest ones to an unknown one, and articles."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def with_article(word: str) -> str:
    """Such as an oracle."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """ "; did you mean a, b?" with the nearest of `known`, or all of them where there are few."""
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?".rstrip("?")
    if 0 < len(names) <= 12:
        return f"; there are {', '.join(names)}"
    return ""
