"""What is checked: a piece from the factory that is registered, or from its registered name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from alseg.calling import described
from alseg.errors import AlsegError, UserMistake
from alseg.names import with_article
from alseg.options import MISSING, parameters_of
from alseg.pieces import GIVEN, WRAPPED, BrokenPiece, Piece, Plugin
from alseg.plugins import Registry, load_plugins
from alseg.registering import is_made
from alseg.testing.contract import Broken, ContractError, Failure, Unusable, said

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
    called: str | None = None,
) -> Subject:
    """The piece that `what` stands for.

    options: by name, as text or as what they are. name: a factory's, for messages; by default the function's.
    around: of a factory that modifies, the piece that it wraps, a factory or a name. called: where `what` was given,
    for messages.
    Raises UserMistake for an unknown name or option, one that is missing, and what is no factory; ContractError where
    the factory's parameters can be no options.
    """
    registry, given, called = registry or load_plugins(), dict(options or {}), called or f"check_{kind}"
    piece = _piece(kind, what, registry, called, name)
    if around is not None:
        piece = _around(piece, _piece(kind, around, registry, "around="), what)
    elif piece.is_modifier and piece.inner is None:
        raise UserMistake(f"The {kind} {piece.name!r} modifies another: give around=, a factory or a name.")
    try:
        takes = piece.options()
    except AlsegError as error:
        if (bare := _bare(piece, given)) is not None:
            raise UserMistake(_lacking(*_owner(piece, bare, called), bare, isinstance(what, str))) from error
        found = f"its factory is refused: {error.reason}" if isinstance(error, BrokenPiece) else _of(piece, error)
        message = f"{found}: change the parameters of its factory"
        raise ContractError(kind, piece.name, (Failure("builds", message),)) from error
    for option in given:
        if option in GIVEN[kind] and option not in takes:
            raise UserMistake(
                f"{option!r} is no option of {with_article(kind)}: alseg gives it to the factory, and {called} does so "
                "as well; leave it out of the options."
            )
    stated = piece.by_one_name(given)
    missing = [option for option, each in takes.items() if each.default is MISSING and option not in stated]
    if missing:
        raise UserMistake(_lacking(*_owner(piece, missing[0], called), missing[0], isinstance(what, str)))
    return Subject(piece, piece.resolve(given), registry)


def _piece(kind: str, what: What, registry: Registry, called: str, name: str | None = None) -> Piece:
    """The piece of a name or a factory, without regard to its options."""
    if isinstance(what, str):
        return registry.find(kind, what)
    if not callable(what) or is_made(kind, what):
        of = with_article(kind)
        it = f"{of} itself" if kind == "recipe" or is_made(kind, what) else described(what)
        raise UserMistake(
            f"{called} takes a factory, which builds {of} anew at each call (it is given {_may_take(kind)} beside its "
            f"options), or its registered name, not {it}: give a factory, `{_call(called, 'lambda: it')}`."
        )
    return Piece(kind, str(name or getattr(what, "__name__", kind)), what, Plugin("test", "test", "-"))


def _around(piece: Piece, inner: Piece, what: What) -> Piece:
    if isinstance(what, str):
        raise UserMistake(f"around= is for factories; by its name {what!r} modifies as in '{what}:{inner.name}'.")
    if not piece.is_modifier:
        parts = " or ".join(repr(part) for part in WRAPPED[piece.kind])
        for parameter in parameters_of(piece.factory):
            if parameter.removeprefix("new_") in GIVEN and parameter not in GIVEN[piece.kind]:
                raise UserMistake(
                    f"{piece.name!r} takes {parameter!r}, and a modifier takes a piece of its own kind alone: one of "
                    f"{piece.kind}s has the parameter {parts}."
                )
        raise UserMistake(
            f"around= is for a factory that modifies another {piece.kind}, and {piece.name!r} has no parameter "
            f"{parts}: leave it out."
        )
    return replace(piece, inner=inner)


def _may_take(kind: str) -> str:
    """What the core gives factories of a kind, such as `images`, `classes` and `seed`."""
    *rest, last = [f"`{name}`" for name in GIVEN[kind]] or ["nothing"]
    return f"{', '.join(rest)} and {last}" if rest else last


def _call(called: str, what: str) -> str:
    return f"{called}{what}" if called.endswith("=") else f"{called}({what})"


def _bare(piece: Piece, given: Mapping[str, Any]) -> str | None:
    """A parameter without type and default that was not given: hardly an option, but a piece's own or a wrong name."""
    known = {*given, *GIVEN[piece.kind], *GIVEN, *(f"new_{kind}" for kind in GIVEN)}
    parameters = [pair for part in piece.parts() for pair in parameters_of(part.factory).items()]
    return next((n for n, p in parameters if n not in known and p.default is p.empty and p.annotation is p.empty), None)


def _owner(piece: Piece, option: str, called: str) -> tuple[Piece, str]:
    """Which of a modifier and what it wraps has an option, and where that was given."""
    inner = piece.inner
    return (
        (piece, called) if inner is None or option in parameters_of(piece.factory) else _owner(inner, option, "around=")
    )


def _lacking(piece: Piece, called: str, option: str, by_name: bool) -> str:
    """What to say of an option that has no default and was not given."""
    if by_name:
        return f"The {piece.kind} {piece.name!r} needs {option!r}: give it in options, {{{option!r}: ...}}."
    close = difflib.get_close_matches(option, [*GIVEN[piece.kind], *WRAPPED[piece.kind]], 1, 0.5)
    near = f", did you mean {close[0]}?" if close else ""
    it = piece.name if piece.name.isidentifier() and piece.name != piece.kind else "it"
    return (
        f"{called} calls {piece.name!r} as the factory that is registered, which lacks {option!r} (beside its options "
        f"it is given {_may_take(piece.kind)}{near}): give it in options, {{{option!r}: ...}}, or, if {it} is the "
        f"{piece.kind} itself, give `{_call(called, f'lambda: {it}')}`."
    )


def _of(piece: Piece, error: Exception) -> str:
    """What is wrong with a piece, without its name."""
    found, described = str(error).rstrip("."), piece.described()
    return f"it{found.removeprefix(described)}" if found.startswith(described) else f"its factory is refused: {found}"


def built(subject: Subject, **given: Any) -> Any:
    """A new piece; a factory that fails is what a check found, a library that is missing is passed on as Unusable."""
    try:
        return subject.build(**given)
    except UserMistake as mistake:
        if isinstance(mistake.__cause__, ImportError):
            raise Unusable(mistake) from mistake
        own = mistake.__cause__ if isinstance(mistake.__cause__, UserMistake) else mistake
        raise Broken(
            f"its factory refused: {str(own).rstrip('.')}", "give options with which it builds here, or mend it"
        ) from mistake
    except AlsegError as error:
        cause = error.__cause__
        if cause is None:
            raise Broken(_of(subject.piece, error), "end the factory by returning the piece") from error
        raise Broken(f"its factory raised {said(cause)}", "it must build with these options") from error
