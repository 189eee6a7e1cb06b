"""A round while it is answered: what is open, and every answer on the disk before the call returns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alseg.errors import AlsegError, Lasting
from alseg.journal import Event, as_events, event_of, fold, places
from alseg.ledger import NOTHING_TWICE, Lacking, Ledger, Plan, Tally
from alseg.protocols import Images
from alseg.store import RunFolder
from alseg.values import Answer, Classes, PixelLabel, PixelLabels, Question

if TYPE_CHECKING:
    import numpy as np

    from alseg.looking import Looking

LEASE, LEASED = 120.0, 3  # seconds for which so many next questions of one person are kept from others


class NotOpen(AlsegError):
    """An answer to what is not asked, or not any more."""


@dataclass(frozen=True)
class Attendance:
    """How this process waits for a person.

    wait: until all is answered; else the run ends as waiting. browser: open it. host, port: where its page is
    served; None: any port that is free. close_votes: what has an answer waits for no other person's and is not
    asked again.
    """

    wait: bool = True
    browser: bool = True
    host: str = "127.0.0.1"
    port: int | None = None
    close_votes: bool = False


class OpenRound:
    """What an oracle or selector with `attend` gets: a round's questions, and the journal that takes the answers.

    Methods may be called from any thread. An event is on the disk when the call returns. `asks_class`: whoever
    attends names classes too; else picks alone are wanted. `labels`: of earlier rounds. `source`: the oracle's
    name. `plan`: what is asked more than once; each showing has a name of its own. `rounds`: how many the run has.
    """

    def __init__(
        self,
        number: int,
        questions: Sequence[Question],
        folder: RunFolder,
        *,
        images: Images,
        sizes: Mapping[str, tuple[int, int]],
        classes: Classes,
        labels: PixelLabels,
        source: str,
        asks_class: bool,
        looking: Looking,
        plan: Plan = NOTHING_TWICE,
        rounds: int = 1,
        attendance: Attendance | None = None,
        advance: Callable[[int], None] = lambda n: None,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.number, self.folder, self.images, self.classes, self.labels = number, folder, images, classes, labels
        self.source, self.asks_class, self.several = source, asks_class, bool(plan.people)
        self.looking, self.rounds, self.say = looking, rounds, say
        self.attendance = attendance or Attendance()
        self.sizes = {question.image: sizes[question.image] for question in questions}
        self._by_image: dict[str, list[str]] = {}
        for question in questions:
            self._by_image.setdefault(question.image, []).append(question.item)
        self._advance, self._clock = advance, clock
        self._changed = threading.Condition(threading.RLock())
        self._leases: dict[str, tuple[str, float]] = {}  # ask -> who sees it, and until when
        self._opened, self._present = clock(), dict[str, float]()  # when each person was last here
        items, everything = {question.item for question in questions}, folder.journal.events()
        self._acts = {event["act"] for event in everything if "act" in event}  # whose events are on the disk
        events = [event for event in everything if event["item"] in items]
        fold(events), places(events)  # which refuse what makes no sense
        self._ledger = Ledger(questions, plan, asks_class, events)
        for name, answer in self._ledger.answers.items():
            if answer.name is not None and answer.name not in classes.index:
                raise Lasting(f"The journal answers {answer.name!r} to {name}, which is no class of the dataset.")
        self._sealed = False
        self._act: str | None = None  # the one that is being done
        self._advance(len(self._ledger.asks) - len(self._ledger.open))

    # What is asked

    def placed(self, image: str | None = None) -> list[Question]:
        """All questions, or those of an image; those that were picked with their pixel."""
        with self._changed:
            items = self._ledger.questions if image is None else self._by_image.get(image, ())
            return [self._ledger.placed(item) for item in items]

    def unanswered(self) -> list[Question]:
        """Questions with a pixel and without all their answers."""
        return [q for q in self.placed() if q.y is not None and self._ledger.answer(q.item) is None]

    def unplaced(self) -> list[Question]:
        """Questions whose pixel nobody has picked yet."""
        return [question for question in self.placed() if question.y is None]

    def answered(self) -> list[PixelLabel]:
        """The labels of all questions that have their answers, in order."""
        return [label for question in self.placed() if (label := self._label(question)) is not None]

    def points(self, image: str) -> list[PixelLabel]:
        """What is labelled in an image so far, this round's included, but for what is still to be asked again."""
        shown = (question for question in self.placed(image) if not self._ledger.is_asked_again(question.item))
        mine = (self._label(question) for question in shown)
        return self.labels.of(image) + [label for label in mine if label is not None]

    def queue(self, count: int, who: str = "") -> list[Question]:
        """The next questions for a person, in order, skipped ones last; the first few nobody else is shown for a while.

        A showing's name stands for the item. What must not sway whoever answers again, or a second time, or what
        only measures, comes without the model's thoughts.
        """
        with self._changed:
            now, found = self._clock(), list[str]()
            self._present[who] = now
            for name in self._ledger.open:
                by, until = self._leases.get(name, (who, 0.0))
                if (by == who or until <= now) and self._ledger.may(name, who):
                    found.append(name)
                if len(found) == count:
                    break
            others = {name: lease for name, lease in self._leases.items() if lease[0] != who and lease[1] > now}
            people = 1 + len({by for by, _ in others.values()})
            mine = found[: max(1, min(LEASED, len(self._ledger.open) // people))]
            self._leases = others | dict.fromkeys(mine, (who, now + LEASE))
            return [self._shown(name) for name in found]

    def skips(self, name: str) -> int:
        """How often a question was put off."""
        return self._ledger.skips.get(name, 0)

    @property
    def complete(self) -> bool:
        """Whether nothing is left for whoever attends; what would be asked again of people who have left is let be."""
        if self._sealed or not self._ledger.open:
            return True
        with self._changed:
            since = self._clock() - LEASE
            owners = [self._ledger.owner_again(name) for name in self._ledger.open]
            return all(who is not None and self._present.get(who, self._opened) < since for who in owners)

    def seal(self) -> bool:
        """Let nothing be taken back any more, where the round is complete; whether it is."""
        with self._changed:
            self._sealed = self.complete
            return self._sealed

    def is_blind(self, name: str) -> bool:
        """Whether whoever answers must see nothing of the model and of other answers."""
        return self._ledger.is_blind(name)

    def can_undo(self, who: str) -> bool:
        """Whether a person did anything in this round that they can take back."""
        return not self._sealed and self._ledger.last_of(who) is not None

    def wait(self, seconds: float | None = None) -> bool:
        """Until the round is complete, or so long; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.complete, seconds)

    def tally(self) -> Tally:
        """How far the round is."""
        with self._changed:
            return self._ledger.tally()

    def lacking(self) -> Lacking:
        """What the round still waits for."""
        with self._changed:
            return self._ledger.lacking()

    # What is answered

    def knows(self, act: str | None) -> bool:
        """Whether an act of this name was done, in this round or an earlier one."""
        return act in self._acts

    def once(self, act: str | None, do: Callable[[], None]) -> None:
        """Do what a person's page asks for under a name of its own; one that is sent a second time changes nothing."""
        with self._changed:
            if self.knows(act):
                return
            self._act = act
            try:
                do()
            finally:
                self._act = None

    def answer(
        self, name: str, class_: str | None, who: str, seconds: float | None = None, at: tuple[int, int] | None = None
    ) -> None:
        """The class of a pixel, None for "can't tell"; the same answer again changes nothing. at: the (y, x) seen."""
        with self._changed:
            if at is not None and not self._ledger.may_be_at(name, at):
                raise NotOpen(f"The item {name!r} has another pixel by now than the one that was answered.")
            if class_ is not None and class_ not in self.classes.index:
                raise NotOpen(f"{class_!r} is no class; there are {', '.join(self.classes.names)}.")
            before = self._ledger.answers.get(name)
            if before is not None and (before.name, before.who) == (class_, who):
                return
            ask = self._open_ask(name)
            if self._ledger.placed(ask.item).y is None:
                raise NotOpen(f"The item {name!r} waits for a pick first.")
            if not self._ledger.may(name, who):
                raise NotOpen(f"The item {name!r} is not for {who}: they answered it before, or it is to check them.")
            (event,) = as_events([Answer(ask.item, class_, who, seconds)])
            self._done([event if name == ask.item else event | {"event": "vote", "ask": name}])

    def pick(self, item: str, y: int, x: int, who: str, seconds: float | None = None) -> None:
        """The pixel of a question that has none yet."""
        self.pick_all([(item, y, x)], who, seconds)

    def pick_all(self, picks: Iterable[tuple[str, int, int]], who: str, seconds: float | None = None) -> None:
        """Several picks, written together, which took so long each."""
        with self._changed:
            ledger = self._ledger
            new = [pick for pick in picks if ledger.places.get(pick[0]) != pick[1:]]  # a lost reply changes nothing
            taken: set[tuple[str, int, int]] = set()
            for item, y, x in new:
                question = ledger.questions.get(item)
                if question is None or question.y is not None or item in ledger.places:
                    raise NotOpen(f"The item {item!r} does not wait for a pick.")
                image, (height, width) = question.image, self.sizes[question.image]
                if not (0 <= y < height and 0 <= x < width):
                    raise NotOpen(f"(y {y}, x {x}) lies outside the image of {height}x{width}.")
                asked = {(p.y, p.x) for p in self.labels.of(image)} | {(q.y, q.x) for q in self.placed(image)}
                if (y, x) in asked or (image, y, x) in taken:
                    raise NotOpen(f"The pixel (y {y}, x {x}) of {image} was asked already.")
                taken.add((image, y, x))
            self._done([{**event_of("picked", item, who), "y": y, "x": x, "seconds": seconds} for item, y, x in new])

    def skip(self, name: str, who: str) -> None:
        """Ask it later."""
        with self._changed:
            ask = self._open_ask(name)
            if not self._ledger.may(name, who):
                raise NotOpen(f"The item {name!r} is not for {who}.")
            self._done([{**event_of("skipped", ask.item, who), "ask": name}])

    def undo(self, who: str) -> None:
        """Take back what a person did last in this round, but no pick that is answered; its question is their next."""
        with self._changed:
            last = None if self._sealed else self._ledger.last_of(who)
            if last is None:
                raise NotOpen("There is nothing to take back in this round.")
            what, name = last
            event = {**event_of("retracted", self._ledger.asks[name].item, who), "what": what, "ask": name}
            self._done([event])
            if name in self._ledger.open:
                self._leases[name] = who, self._clock() + LEASE

    def close_votes(self, who: str) -> int:
        """Let what has an answer wait for no further one: its votes are resolved as they are; how many questions."""
        with self._changed:
            items = self._ledger.closable()
            self._done([event_of("closed", item, who) for item in items])
            return len(items)

    def take(self, answers: Sequence[Answer]) -> None:
        """Answers of an oracle that does not attend, written together; AlsegError where one names no class."""
        with self._changed:
            wanted = {question.item for question in self.unanswered()}
            for answer in answers:
                if answer.name is not None and answer.name not in self.classes.index:
                    raise AlsegError(
                        f"The oracle {self.source!r} answered {answer.name!r} to {answer.item}; "
                        f"the classes are {', '.join(self.classes.names)}."
                    )
            self._done(as_events([answer for answer in answers if answer.item in wanted]))

    def predicted(self, image: str) -> np.ndarray | None:
        """The class values that the last round's model sees in an image, int64 [H, W]; None before there is one."""
        return self.looking.predicted(image)

    def utility(self, image: str) -> np.ndarray | None:
        """How much a label would teach it, float [H, W]."""
        return self.looking.utility(image)

    def noise(self, purpose: str, image: str) -> np.ndarray:
        """Uniform numbers in [0, 1), float64 [H, W], keyed by seed, round, purpose and image."""
        return self.looking.noise(purpose, image, self.sizes[image])

    def _open_ask(self, name: str) -> Any:
        if name not in self._ledger.open:
            raise NotOpen(f"The item {name!r} does not wait for an answer.")
        return self._ledger.asks[name]

    def _shown(self, name: str) -> Question:
        ask = self._ledger.asks[name]
        question = self._ledger.placed(ask.item)
        if not self.is_blind(name):
            return question
        return Question(name, question.image, question.y, question.x, audit=question.audit)

    def _label(self, question: Question) -> PixelLabel | None:
        answer = self._ledger.answer(question.item)
        if answer is None or question.y is None or question.x is None:
            return None
        facts = (question.item, question.image, question.y, question.x, answer.name, self.number)
        spent = (answer.seconds, self._ledger.pick_seconds.get(question.item))
        known = [seconds for seconds in spent if seconds is not None]
        return PixelLabel(*facts, self.source, answer.who, sum(known) if known else None, question.audit)

    def _done(self, events: Sequence[Event]) -> None:
        """Write what was done, and only then hold it for done."""
        if events:
            self.folder.journal.append([event | {"act": self._act} for event in events] if self._act else events)
            self._acts |= {self._act} if self._act else set()
        before = len(self._ledger.open)
        for event in events:
            self._ledger.follow(event)
            self._leases.pop(str(event.get("ask", event["item"])), None)
        self._advance(before - len(self._ledger.open))
        self._changed.notify_all()
