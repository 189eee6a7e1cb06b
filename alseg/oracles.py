"""What an oracle does in a run is checked, what it raises names it, and what it answered properly is kept."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from alseg.answering import NotOpen, OpenRound
from alseg.calling import called, described
from alseg.errors import PROTOCOLS, AlsegError
from alseg.values import Answer, Answers


class Named(NamedTuple):
    """A selector or oracle, and its kind, name and distribution as messages begin."""

    piece: Any
    name: str


def attends(piece: Any) -> bool:
    """Whether a selector picks, or an oracle writes its answers itself as they come."""
    return callable(getattr(piece, "attend", None))


def check_oracle(oracle: Named) -> None:
    """AlsegError where it lacks what every oracle has."""
    methods = ("sees_truth",) if attends(oracle.piece) else ("ask", "collect", "sees_truth")
    lacks = called(oracle.name, lambda: [part for part in methods if not hasattr(oracle.piece, part)])
    if lacks:
        raise AlsegError(f"{oracle.name} has no {' and no '.join(lacks)}: see Oracle in {PROTOCOLS}.")
    truth = called(oracle.name, lambda: oracle.piece.sees_truth, "sees_truth")
    if not isinstance(truth, bool):
        raise AlsegError(f"{oracle.name} has {truth!r:.80} as sees_truth; it must be True or False.")


def let_attend(round: OpenRound, attendant: Named) -> None:
    """Let whoever picks or answers by itself do so."""
    try:
        called(attendant.name, lambda: attendant.piece.attend(round), "attend")
    except NotOpen as error:
        raise AlsegError(f"{attendant.name} did in attend what the round does not take: {error}") from error


def let_answer(round: OpenRound, oracle: Named) -> None:
    """Ask what is open and take what is answered; it may be complete another time."""
    questions = round.unanswered()
    if not questions:
        return
    piece, name = oracle
    try:
        called(name, lambda: piece.ask([*questions]), "ask")
    except Exception:
        with contextlib.suppress(Exception, SystemExit):  # what it answered before is kept
            _take(round, name, piece.collect())
        raise
    given = called(name, lambda: piece.collect(), "collect")
    _take(round, name, given)
    complete = called(name, lambda: bool(given.complete), "collect")
    if complete and (missing := round.unanswered()):
        raise AlsegError(
            f"{name} says that all is answered, and {len(missing)} of {len(questions)} questions have no answer, the "
            f"first of them {missing[0].item}: answer None for what cannot be told, or give complete=False."
        )


def _take(round: OpenRound, name: str, given: Any) -> None:
    """Take what is answered properly; then AlsegError for the first that is not."""
    answers = list(given.answers) if isinstance(given, Answers) and isinstance(given.answers, Iterable) else None
    if answers is None:
        raise AlsegError(f"{name} gave {described(given)} in collect; it must give alseg.Answers(answers, complete).")
    asked, wrong, twice = _asked_in(round), list[str](), set[str]()
    good: dict[str, Answer] = {}
    for answer in answers:
        problem = _problem(answer, round) or _stranger(answer, asked)
        if problem is None and (before := good.get(answer.item, answer)).name != answer.name:
            problem = f"answered {answer.item} with {before.name!r} and with {answer.name!r}"
            twice.add(answer.item)
        if problem is None:
            seconds = None if answer.seconds is None else float(answer.seconds)
            good.setdefault(answer.item, answer._replace(seconds=seconds))
        else:
            wrong.append(problem)
    round.take([answer for item, answer in good.items() if item not in twice])
    if wrong:
        raise AlsegError(f"{name} {wrong[0]}; what it answered properly is kept.")


def _problem(answer: Any, round: OpenRound) -> str | None:
    """What is wrong with an answer, whatever was asked."""
    if not isinstance(answer, Answer) or not isinstance(answer.item, str):
        return f"gave {answer!r:.80} among its answers; each must be alseg.Answer(item, name, who)"
    name, seconds = answer.name, answer.seconds
    if name is not None and (not isinstance(name, str) or name not in round.classes.index):
        return f"answered {name!r:.80} to {answer.item}; the classes are {', '.join(round.classes.names)}"
    if not isinstance(answer.who, str):
        return f"says that {answer.who!r:.80} answered {answer.item}; who must be a name"
    number = isinstance(seconds, numbers.Real) and math.isfinite(seconds) and seconds >= 0
    if seconds is not None and not number:
        return f"says that {answer.item} took {seconds!r:.80} seconds; it must be a number from 0 on, or None"
    return None


def _asked_in(round: OpenRound) -> Callable[[str], bool]:
    """Whether an item was ever asked in the run: an oracle may give earlier rounds' answers again."""
    mine, before = {question.item for question in round.placed()}, set[str]()

    def asked(item: str) -> bool:
        if item not in mine and not before:
            earlier = (round.folder.questions(number) or () for number in range(round.number))
            before.update(question.item for questions in earlier for question in questions)
        return item in mine or item in before

    return asked


def _stranger(answer: Answer, asked: Callable[[str], bool]) -> str | None:
    if asked(answer.item):
        return None
    return f"answered {answer.item!r:.80}, which was never asked: an answer has its question's item"
