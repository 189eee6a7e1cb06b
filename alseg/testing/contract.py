"""A contract is a list of named checks; all of them are done, and what they found is told together."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from alseg.calling import in_words, place_of
from alseg.errors import AlsegError, UserMistake
from alseg.names import nearest, with_article

S = TypeVar("S")


class Failure(NamedTuple):
    """A check that failed: its name, and what was found and how to mend it."""

    check: str
    message: str


class ContractError(AssertionError):
    """A piece does not keep its contract; `failures` are the checks that found so, in order."""

    def __init__(self, kind: str, name: str, failures: tuple[Failure, ...]) -> None:
        super().__init__(kind, name, failures)  # by which it is unpickled
        self.kind, self.name, self.failures = kind, name, failures

    def __str__(self) -> str:
        if len(self.failures) == 1:
            return f"{self.kind} {self.name!r}: {self.failures[0].message} (check {self.failures[0].check})"
        lines = [f"- {failure.check}: {failure.message}" for failure in self.failures]
        return "\n".join([f"{self.kind} {self.name!r} fails {len(self.failures)} checks:", *lines])


class Report(NamedTuple):
    """What was checked of a piece: the checks that it passed, and of those that were left out why."""

    kind: str
    name: str
    passed: tuple[str, ...]
    left_out: Mapping[str, str]


class Broken(Exception):
    """What a check found, and how to mend it."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(f"{found}: {mend}")


class Unusable(Exception):
    """A piece that cannot be had here for a reason that is not its own, such as a library that is missing."""

    def __init__(self, mistake: UserMistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


class Inapplicable(Exception):
    """A check that says nothing of this piece, and why."""


def require(condition: object, found: str, mend: str) -> None:
    """Fail a check: `found` is what is wrong and what was expected, `mend` what to do."""
    if not condition:
        raise Broken(found, mend)


@dataclass(frozen=True)
class Check(Generic[S]):
    """A check: its name, the sentence on it, and what it does with a subject.

    basic: without it the others would say nothing, so that it is done first and alone if it fails.
    """

    name: str
    says: str
    run: Callable[[S], None]
    basic: bool


class Contract(Generic[S]):
    """The checks of a kind of piece; a subject is a piece with all that its checks need."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.checks: list[Check[S]] = []

    def check(self, name: str, *, basic: bool = False) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
        """Add a check; the function's docstring says what is checked."""

        def add(run: Callable[[S], None]) -> Callable[[S], None]:
            self.checks.append(Check(name, inspect.getdoc(run) or "", run, basic))
            return run

        return add

    def judge(self, subject: S, name: str, skip: Mapping[str, str] | None = None) -> Report:
        """Do all checks; raises ContractError with all that failed.

        Raises UserMistake for a `skip` of no check, and where the piece cannot be had at all.
        """
        self._refuse_unknown(skip or {})
        skip = dict(skip or {})
        passed: list[str] = []
        failures: list[tuple[Failure, Exception]] = []
        for check in self.checks:
            if check.name in skip:
                continue
            try:
                check.run(subject)
                passed.append(check.name)
            except Inapplicable as reason:
                skip[check.name] = str(reason)
            except (Exception, SystemExit) as error:
                if check.basic and isinstance(error, Unusable):
                    raise error.mistake from None
                failures.append((Failure(check.name, told(error)), error))  # type: ignore[arg-type]
                if check.basic:
                    break
        if failures:
            raise ContractError(self.kind, name, tuple(failure for failure, _ in failures)) from failures[0][1]
        return Report(self.kind, name, tuple(passed), skip)

    def _refuse_unknown(self, skip: Any) -> None:
        known = [check.name for check in self.checks]
        there_are = f"; there are {', '.join(known)}"
        if not isinstance(skip, Mapping):
            raise UserMistake(
                f"skip names checks with the reason why each is left out, such as {{{known[-1]!r}: 'why'}}, not "
                f"{skip!r}{there_are}."
            )
        for name, reason in skip.items():
            if name not in known:
                close = nearest(str(name), known)
                near = close if close.startswith("; did") else ""
                raise UserMistake(f"There is no check {name!r} of {with_article(self.kind)}{near}{there_are}.")
            if not isinstance(reason, str) or not reason.strip():
                raise UserMistake(f"Leaving out the check {name!r} takes a reason: skip={{{name!r}: 'why'}}.")


def told(error: BaseException) -> str:
    """What a check found, in a sentence; of an error of the piece's own, which and where."""
    if isinstance(error, Broken):
        return str(error)
    if isinstance(error, AlsegError | Unusable):
        return str(error).rstrip(".")
    return f"it raised {said(error)}"


def said(error: BaseException) -> str:
    """An error of somebody's own: which, what it says, and where."""
    return f"{in_words(error)}{place_of(error)}"
