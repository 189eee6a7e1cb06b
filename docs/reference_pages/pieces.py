"""Every piece of every kind, from the registry."""

from __future__ import annotations

from alseg.pieces import GIVEN, WRAPPED, Piece
from alseg.plugins import Registry
from alseg.several import LISTS
from reference_pages.words import MADE, cell, default_of, documentation, fenced, table

HEADER = f"""# Pieces

{MADE}
Everything that alseg registers; `alseg plugins` lists other people's pieces too. A piece is chosen by its name, for
instance `--acquirer entropy`, and takes its options as `-o KIND.OPTION=VALUE`, for instance `-o selector.top=0.1`. A
piece written `NAME:OTHER` modifies another of its kind. What acquirers and selectors compute, and after whom:
[strategies](../strategies.md).

"""
INTRODUCTION = {
    "dataset": "`--dataset NAME`; its folder by `--data`. `alseg datasets` prints the same, and `alseg datasets check` "
    "reads a folder and says what is wrong with it.",
    "model": "`--model NAME`.",
    "acquirer": "`--acquirer NAME`: the utility of each pixel, higher = ask first.",
    "selector": "`--selector NAME`: which n pixels of an image, by their utility.",
    "oracle": "`--oracle NAME`: who labels them.",
    "term": "`-o terms=NAME,NAME`: what is added to the loss. Their options are `-o NAME.OPTION=VALUE`.",
    "tracker": "`--trackers NAME,NAME`: where a run's figures go besides its folder. Their options are "
    "`-o NAME.OPTION=VALUE`; more: [track runs](../guides/tracking.md).",
    "recipe": "`--recipe NAME`; without it the dataset's. Options are `-o recipe.OPTION=VALUE`. Their values: "
    "[recipes](../recipes.md).",
    "executor": "`alseg compare --executor NAME`: where the runs of a comparison take place.",
}


def pieces_page(registry: Registry) -> str:
    """docs/reference/pieces.md."""
    text = HEADER
    for kind in GIVEN:
        pieces = sorted(registry.of(kind), key=lambda piece: piece.name)
        text += f"## {kind.capitalize()}s\n\n{INTRODUCTION.get(kind, '')}\n\n"
        text += "".join(_dataset(piece) for piece in pieces) if kind == "dataset" else _listed(kind, pieces)
    return text.rstrip() + "\n"


def _listed(kind: str, pieces: list[Piece]) -> str:
    rows = [[f"`{_name(piece)}`", cell(piece.says())] for piece in pieces]
    text = table(["name", "what it is"], rows) + "\n"
    options = [row for piece in pieces for row in _options(piece)]
    return text + (table(["of", "option", "takes", "default"], options) + "\n" if options else "")


def _options(piece: Piece) -> list[list[str]]:
    prefix = piece.name if piece.kind in LISTS.values() else piece.kind
    return [
        [f"`{_name(piece)}`", f"`{prefix}.{name}`", cell(option.describe()["type"]), cell(default_of(option))]
        for name, option in piece.options().items()
    ]


def _dataset(piece: Piece) -> str:
    """A dataset with all that its factory says of where it is had and how it lies on the disk."""
    text = f"### {piece.name}\n\n{fenced(documentation(getattr(piece.factory, 'func', piece.factory)), 'text')}\n"
    rows = [row[1:] for row in _options(piece)]
    return text + (table(["option", "takes", "default"], rows) + "\n" if rows else "")


def _name(piece: Piece) -> str:
    return f"{piece.name}:{WRAPPED[piece.kind][0].upper()}" if piece.is_modifier else piece.name
