"""The state of a round's questions, as a journal's events make it.

A question may be shown more than once: to several people, or to the same person again. Each showing is an ask
with a name of its own; the first one bears the question's.
"""

from __future__ import annotations

import statistics
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from alseg.journal import Event, answer_of, reopens, resolved
from alseg.values import Answer, Question

Kind = Literal["first", "other", "again"]
RECENT = 200  # answers whose seconds are averaged


@dataclass(frozen=True)
class Tally:
    """How far a round is; agreed of guessed: answers that the model had guessed.

    seconds: an answer's median, with a pick's where the pixels are picked.
    """

    done: int
    total: int
    skipped: int
    unsure: int
    agreed: int
    guessed: int
    seconds: float | None


@dataclass(frozen=True)
class Lacking:
    """What a round still waits for.

    untouched: questions without any answer or without a pixel. votes: how many questions have k of n people's
    answers, by (k, n). again: how many answers are to be given again, by who gave them.
    """

    untouched: int
    votes: Mapping[tuple[int, int], int]
    again: Mapping[str, int]

    def said(self) -> str:
        """Who has to come, in sentences; empty where anybody will do."""
        words = []
        if self.votes:
            count = sum(self.votes.values())
            have = ", ".join(f"{many} with {k} of {n} votes" for (k, n), many in sorted(self.votes.items()))
            words.append(f"{count} {'question needs' if count == 1 else 'questions need'} another person ({have}).")
        if self.again:
            count, people = sum(self.again.values()), ", ".join(sorted(self.again))
            words.append(f"{count} {'answer is' if count == 1 else 'answers are'} asked again, of {people}.")
        return " ".join(words)


class Ask(NamedTuple):
    """One showing of a question: to anybody, to another person, or again to whoever answered."""

    name: str
    item: str
    kind: Kind


@dataclass(frozen=True)
class Plan:
    """Which questions are shown more than once: item -> of how many people, and items asked again, blind.

    blind: those that are shown without what the model thought in the first place.
    """

    people: dict[str, int]
    again: frozenset[str]
    blind: frozenset[str] = frozenset()


NOTHING_TWICE = Plan({}, frozenset())


def asks_of(questions: Iterable[Question], plan: Plan) -> list[Ask]:
    """All asks in order: questions, then what others are asked, then what is asked again."""
    items = [question.item for question in questions]
    others = [Ask(f"{item}/{turn}", item, "other") for item in items for turn in range(2, 1 + plan.people.get(item, 1))]
    repeated = [Ask(f"{item}/again", item, "again") for item in items if item in plan.again]
    return [Ask(item, item, "first") for item in items] + others + repeated


class Ledger:
    """Answers, picks, and the order of what is open and of what can be taken back.

    asks_class: whether somebody names classes here; else only pixels are picked.
    """

    def __init__(self, questions: Sequence[Question], plan: Plan, asks_class: bool, events: Iterable[Event]) -> None:
        self.questions = {question.item: question for question in questions}
        self.asks = {ask.name: ask for ask in asks_of(questions, plan)}
        self.answers: dict[str, Answer] = {}  # by ask
        self.places: dict[str, tuple[int, int]] = {}  # of items that were picked
        self.pick_seconds: dict[str, float] = {}
        self.skips: dict[str, int] = {}
        self.open = OrderedDict.fromkeys(self.asks)
        self.history: list[tuple[str, str, str]] = []  # what was done, with which ask, by whom
        self.closed: set[str] = set()  # items that wait for no further answer
        self._asks_class, self._blind = asks_class, plan.blind
        for event in events:
            self.follow(event)
        for name in list(self.open):
            self._close_if_done(name)

    def follow(self, event: Event) -> None:
        """Take in what happened; an event of another round's item is passed over."""
        name, kind = event.get("ask", event["item"]), event["event"]
        if name not in self.asks:
            return
        if kind == "retracted":
            if reopens(event):
                self.closed.discard(self.asks[name].item)
            self._take_back(event.get("what", "answered"), name, event.get("who", ""))
            return
        if kind == "closed":
            self.closed.add(name)
            for ask in self.asks_of_item(name):
                self._close_if_done(ask.name)
            return
        if kind in ("answered", "unsure", "vote"):
            self.answers[name] = answer_of(event)
        elif kind == "picked":
            self.places[name] = int(event["y"]), int(event["x"])
            if event.get("seconds") is not None:
                self.pick_seconds[name] = float(event["seconds"])
        elif kind == "skipped":
            self.skips[name] = self.skips.get(name, 0) + 1
            if name in self.open:
                self.open.move_to_end(name)
        what = kind if kind in ("picked", "skipped") else "answered"
        self.history.append((what, name, event.get("who", "")))
        self._close_if_done(name)

    def _take_back(self, what: str, name: str, who: str) -> None:
        for place in range(len(self.history) - 1, -1, -1):
            if self.history[place] == (what, name, who):
                del self.history[place]
                break
        if what == "answered":
            self.answers.pop(name, None)
        elif what == "picked":
            self.places.pop(name, None)
            self.pick_seconds.pop(name, None)
        elif what == "skipped":
            self.skips[name] = max(0, self.skips.get(name, 0) - 1)
        for ask in self.asks_of_item(self.asks[name].item):  # which may have been closed
            if self.is_open(ask.name):
                self.open.setdefault(ask.name)
        if self.is_open(name):  # a question that was put off may have been answered by somebody else since
            self.open.move_to_end(name, last=False)

    def _close_if_done(self, name: str) -> None:
        if not self.is_open(name):
            self.open.pop(name, None)

    def is_open(self, name: str) -> bool:
        """Whether an ask still wants something."""
        item = self.asks[name].item
        placed = self.questions[item].y is not None or item in self.places
        return not placed or (self._asks_class and name not in self.answers and item not in self.closed)

    def placed(self, item: str) -> Question:
        """A question with its pixel, once that is picked."""
        question = self.questions[item]
        if question.y is not None or item not in self.places:
            return question
        y, x = self.places[item]
        return question._replace(y=y, x=x)

    def may_be_at(self, name: str, at: tuple[int, int]) -> bool:
        """Whether no other pixel (y, x) than this is an ask's."""
        ask = self.asks.get(name)
        question = None if ask is None else self.placed(ask.item)
        return question is None or question.y is None or (question.y, question.x) == at

    def may(self, name: str, who: str) -> bool:
        """Whether an ask is for this person: one of several only once for each, a repetition for whoever answered."""
        ask = self.asks[name]
        first = self.answers.get(ask.item)
        if ask.kind == "again":
            return first is not None and first.who == who
        names = [other for other in self.asks_of_item(ask.item) if other.kind != "again" and other.name != name]
        return all(self.answers[other.name].who != who for other in names if other.name in self.answers)

    def is_blind(self, name: str) -> bool:
        """Whether an ask checks the model or another answer, or is to be answered without what the model thought."""
        ask = self.asks[name]
        return ask.kind != "first" or ask.item in self._blind or self.questions[ask.item].audit

    def owner_again(self, name: str) -> str | None:
        """Whose answer an ask repeats; None where it is none that repeats, or has nothing to repeat yet."""
        ask = self.asks[name]
        first = self.answers.get(ask.item)
        return first.who if ask.kind == "again" and first is not None else None

    def asks_of_item(self, item: str) -> list[Ask]:
        """The showings of a question."""
        found, turn = [self.asks[item]], 2
        while (more := self.asks.get(f"{item}/{turn}")) is not None:
            found.append(more)
            turn += 1
        again = self.asks.get(f"{item}/again")
        return found if again is None else [*found, again]

    def votes(self, item: str) -> list[Answer]:
        """What people answered to a question, without what was asked again."""
        names = [ask.name for ask in self.asks_of_item(item) if ask.kind != "again"]
        return [self.answers[name] for name in names if name in self.answers]

    def answer(self, item: str) -> Answer | None:
        """What a question's answers come to; None before all are in, or it is closed with some."""
        given = self.votes(item)
        wanted = sum(ask.kind != "again" for ask in self.asks_of_item(item))
        return resolved(given) if given and (len(given) == wanted or item in self.closed) else None

    def closable(self) -> list[str]:
        """Questions that have an answer and wait for another."""
        waiting = dict.fromkeys(self.asks[name].item for name in self.open)
        return [item for item in waiting if self.votes(item)]

    def is_asked_again(self, item: str) -> bool:
        """Whether its answer is still to be given again."""
        return f"{item}/again" in self.open

    def lacking(self) -> Lacking:
        """What is still waited for."""
        untouched, votes, again = 0, Counter[tuple[int, int]](), Counter[str]()
        asks = [self.asks[name] for name in self.open]
        again.update(self.answers[ask.item].who for ask in asks if ask.kind == "again" and ask.item in self.answers)
        for item, lacks in Counter(ask.item for ask in asks if ask.kind != "again").items():
            given = len(self.votes(item))
            untouched += not given
            votes.update({(given, given + lacks): 1} if given else {})
        return Lacking(untouched, votes, again)

    def tally(self) -> Tally:
        """How far the round is."""
        known = list(self.answers.values())
        firsts = [(a.name, self.questions[a.item].guess) for a in known if a.item in self.questions]
        guessed = [name == guess for name, guess in firsts if None not in (name, guess)]
        answering = [a.seconds for a in known if a.seconds is not None] if self._asks_class else []
        spent = [statistics.median(t[-RECENT:]) for t in (answering, list(self.pick_seconds.values())) if t]
        return Tally(
            done=len(self.asks) - len(self.open),
            total=len(self.asks),
            skipped=sum(count > 0 and name in self.open for name, count in self.skips.items()),
            unsure=sum(a.name is None for a in known),
            agreed=sum(guessed),
            guessed=len(guessed),
            seconds=sum(spent) if spent else None,
        )

    def last_of(self, who: str) -> tuple[str, str] | None:
        """What a person did last that can be taken back, and with which ask; a pick that is answered stands."""
        mine = ((what, name) for what, name, by in reversed(self.history) if by == who)
        return next((done for done in mine if not (done[0] == "picked" and self._has_answers(done[1]))), None)

    def _has_answers(self, name: str) -> bool:
        return any(ask.name in self.answers for ask in self.asks_of_item(self.asks[name].item))
