"""What is said of a name that no piece has."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence

from alseg.errors import UserMistake, stopped
from alseg.names import nearest
from alseg.pieces import Piece, Plugin


def unknown(
    kind: str, name: str, pieces: Sequence[Piece], plugins: Iterable[Plugin], full_name: Callable[[Piece], str]
) -> UserMistake:
    """There is no piece of a name among those of its kind; what there is, and which plugins failed to load."""
    words = [stopped(f"There is no {kind} {name!r}{_instead(kind, name, pieces, full_name)}")]
    for plugin in plugins:
        if plugin.status == "failed":
            words.append(stopped(f"The plugin {plugin.name} of {plugin.distribution} failed to load: {plugin.error}"))
    return UserMistake(("\n" if len(words) > 2 else " ").join(words))


def like_modifier(name: str, pieces: Iterable[Piece]) -> str:
    """Modifiers like the first part of a name."""
    return nearest(f"{name.partition(':')[0]}:", [f"{piece.name}:" for piece in pieces if piece.is_modifier])


def _instead(kind: str, name: str, pieces: Sequence[Piece], full_name: Callable[[Piece], str]) -> str:
    """Names like an unknown one; of distribution:name and modifier:name, what is wrong with the first part."""
    head, colon, rest = name.partition(":")
    if not colon:
        return nearest(name, [piece.name for piece in pieces])
    own = [piece for piece in pieces if piece.plugin.is_called(head)]
    if own:
        near = nearest(rest, [piece.name for piece in own])
        return f"{near} of {head}" if near else ""
    if difflib.get_close_matches(head, [piece.name for piece in pieces if piece.is_modifier], cutoff=0.65):
        return like_modifier(name, pieces)
    whole = sorted(full_name(piece) for piece in pieces if piece.name == rest)
    if len(whole) == 1:
        whole = [rest]
    owners = ", ".join(sorted({piece.plugin.prefix for piece in pieces}))
    write = f"write {' or '.join(whole)}" if whole else f"those that have some are {owners}"
    return f": no distribution or file called {head!r} has {kind}s, and it is no modifier; {write}"
