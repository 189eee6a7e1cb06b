"""What is checked: a piece from the factory that is registered, or from its registered name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alseg.errors import AlsegError, UserMistake
from alseg.options import parameters_of
from alseg.pieces import GIVEN, WRAPPED, Piece, Plugin
from alseg.plugins import Registry, load_plugins
from alseg.testing.contract import Broken, Unusable, with_article

What = str | Callable[..., Any]  # a registered name, or a factory


@dataclass(frozen=True)
class Subject:
    """A piece with its options, converted, and the registry of whatever stands beside it."""

    piece: Piece
    options: Mapping[str, Any]
    registry: Registry

    @property
    def name(self) -> str:
        """The piece's."""
        return self.piece.name

    def build(self, **given: Any) -> Any:
        """A new one; given: what the core gives factories of its kind."""
        return self.piece.build(self.options, **given)


def subject_of(
    kind: str,
    what: What,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
) -> Subject:
    """The piece that `what` stands for.

    options: by name, as text or as what they are. name: a factory's, for messages; by default the function's.
    around: of a factory that modifies, the piece that it wraps, a factory or a name.
    Raises UserMistake for an unknown name or option, one that is missing, and what is no factory.
    """
    registry = registry or load_plugins()
    if isinstance(what, str):
        piece = registry.find(kind, what)
    else:
        if not callable(what):
            raise UserMistake(
                f"check_{kind} takes the factory that is registered or its name, not {with_article(kind)} itself: "
                "give `lambda: it`."
            )
        inner = None if around is None else subject_of(kind, around, {}, registry=registry).piece
        piece = Piece(kind, str(name or getattr(what, "__name__", kind)), what, Plugin("test", "test", "-"), inner)
        _refuse_no_factory(piece, options or {})
    return Subject(piece, piece.resolve(options or {}), registry)


def _refuse_no_factory(piece: Piece, options: Mapping[str, Any]) -> None:
    parts = WRAPPED[piece.kind]
    if piece.is_modifier and piece.inner is None:
        raise UserMistake(f"The {piece.kind} {piece.name!r} modifies another: give around=, a factory or a name.")
    known = {*GIVEN[piece.kind], *parts, *options}
    missing = [
        name
        for name, parameter in parameters_of(piece.factory).items()
        if parameter.default is parameter.empty and name not in known
    ]
    if missing and piece.inner is None:
        raise UserMistake(
            f"check_{piece.kind} calls {piece.name!r} as the factory that is registered, which lacks {missing[0]!r}: "
            f"give it in options, or, if it is the {piece.kind} itself, give `lambda: {piece.name}`."
        )


def built(subject: Subject, **given: Any) -> Any:
    """A new piece; a factory that fails is what a check found, and UserMistake is passed on as Unusable."""
    try:
        return subject.build(**given)
    except UserMistake as mistake:
        raise Unusable(mistake) from mistake
    except AlsegError as error:
        cause = error.__cause__
        raise Broken(
            "its factory does not give a piece" if cause is None else f"its factory raised {_said(cause)}",
            "it must build with these options, and return the piece",
        ) from error


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
