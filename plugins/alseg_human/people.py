"""The oracle and the selector that are a person at the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alseg.answering import OpenRound
from alseg.errors import AlsegError
from alseg.values import Answers, PoolBatch, Question, Selection
from alseg_human.server import PageServer, page_of

if TYPE_CHECKING:
    from torch import Tensor


class _Person:
    """Somebody at the page of a run."""

    is_person = True

    def __init__(self) -> None:
        self._server: PageServer | None = None

    def attend(self, round: OpenRound) -> None:
        """Serve the page until the round is complete; at once over where nobody is waited for."""
        if not round.attendance.wait:
            return
        self._server = page_of(round)
        self._server.ask(round)

    def dismiss(self, message: str, done: bool) -> None:
        """Leave a last word on the page and close it."""
        if self._server is not None:
            self._server.close(message, done)


class Labeller(_Person):
    """Names the classes of pixels. In a run it attends; without one, what it is asked stays unanswered."""

    sees_truth = False

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, Question] = {}

    def ask(self, questions: Sequence[Question]) -> None:
        """Take questions on."""
        self._asked |= {question.item: question for question in questions}

    def collect(self) -> Answers:
        """Nothing: a person answers where a round is open."""
        return Answers((), complete=not self._asked)


class Picker(_Person):
    """Picks pixels by clicks."""

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """Not in a run: there it attends."""
        raise AlsegError("The selector human picks where a whole round is open, not in a batch.")
