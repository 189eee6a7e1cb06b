"""How a run tells what it is doing; the command line shows it, a script may pass `Quiet`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Step = Callable[[int, str], None]  # how much more is done, and a word on it ("" leaves the last)


class Progress(Protocol):
    """Shows phases with a known amount of work, and lines."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Step]:
        """A phase of `total` steps; inside, call the step function."""

    def scored(self, records: Sequence[Mapping[str, Any]], rounds: int) -> None:
        """The finished rounds' records, of `rounds` at most."""

    def say(self, line: str) -> None:
        """A line that stays."""


class Quiet:
    """Shows nothing."""

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Step]:
        """Nothing is shown."""
        yield lambda done, word: None

    def scored(self, records: Sequence[Mapping[str, Any]], rounds: int) -> None:
        """Nothing is shown."""

    def say(self, line: str) -> None:
        """Nothing is said."""
