"""A round while it is answered: what is open, and every answer on the disk before the call returns."""

from __future__ import annotations

import statistics
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from alseg.errors import AlsegError
from alseg.journal import Event, as_events, fold, places
from alseg.protocols import Images
from alseg.store import RunFolder
from alseg.values import Answer, Classes, PixelLabel, PixelLabels, Question

if TYPE_CHECKING:
    import numpy as np

    from alseg.looking import Looking

RECENT = 200  # answers whose seconds are averaged


class NotOpen(AlsegError):
    """An answer to what is not asked, or not any more."""


@dataclass(frozen=True)
class Attendance:
    """How this process waits for a person.

    wait: until all is answered; else the run ends as waiting. browser: open it. host, port: where its page is
    served; None: any port that is free.
    """

    wait: bool = True
    browser: bool = True
    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True)
class Tally:
    """How far a round is; agreed of guessed: answers that the model had guessed. seconds: an answer's median."""

    done: int
    total: int
    skipped: int
    unsure: int
    agreed: int
    guessed: int
    seconds: float | None


class OpenRound:
    """What an oracle or selector with `attend` gets: a round's questions, and the journal that takes the answers.

    Methods may be called from any thread. An event is on the disk when the call returns. `asks_class`: whoever
    attends names classes too; else picks alone are wanted. `labels`: of earlier rounds. `source`: the oracle's
    name. `rounds`: how many the run has.
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
        rounds: int = 1,
        attendance: Attendance | None = None,
        advance: Callable[[int], None] = lambda n: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.number, self.folder, self.images, self.classes, self.labels = number, folder, images, classes, labels
        self.source, self.asks_class = source, asks_class
        self.looking, self.rounds, self.say = looking, rounds, say
        self.attendance = attendance or Attendance()
        self.sizes = {question.image: sizes[question.image] for question in questions}
        self._questions = {question.item: question for question in questions}
        self._by_image: dict[str, list[Question]] = {}
        for question in questions:
            self._by_image.setdefault(question.image, []).append(question)
        self._journal, self._advance = folder.journal, advance
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        events = [event for event in self._journal.events() if event["item"] in self._questions]
        self._answers, self._places = fold(events), places(events)
        for item, answer in self._answers.items():
            if answer.name is not None and answer.name not in classes.index:
                raise AlsegError(f"The journal answers {answer.name!r} to {item}, which is no class of the dataset.")
        self._taken = {(q.image, q.y, q.x) for q in self.placed() if q.y is not None}
        self._open = OrderedDict((item, None) for item in self._questions)
        self._history: list[tuple[str, str]] = []  # what was done, in order, and with which item
        self._skips: dict[str, int] = {}
        for event in events:
            self._follow(event)
        for item in list(self._open):
            if not self._is_open(item):
                del self._open[item]
        self._advance(len(self._questions) - len(self._open))

    # What is asked

    def placed(self, image: str | None = None) -> list[Question]:
        """All questions, or those of an image; those that were picked with their pixel."""
        with self._lock:
            asked = self._questions.values() if image is None else self._by_image.get(image, ())
            return [self._with_place(question) for question in asked]

    def unanswered(self) -> list[Question]:
        """Questions with a pixel and without an answer."""
        with self._lock:
            return [q for q in self.placed() if q.y is not None and q.item not in self._answers]

    def unplaced(self) -> list[Question]:
        """Questions whose pixel nobody has picked yet."""
        with self._lock:
            return [q for q in self._questions.values() if q.y is None and q.item not in self._places]

    def answered(self) -> list[PixelLabel]:
        """The round's labels; it must be complete."""
        with self._lock:
            return [
                PixelLabel(
                    q.item, q.image, int(q.y or 0), int(q.x or 0), a.name, self.number, self.source, a.who, a.seconds
                )
                for q, a in ((question, self._answers[question.item]) for question in self.placed())
            ]

    def queue(self, count: int) -> list[Question]:
        """The next questions for whoever attends: in order, skipped ones last."""
        with self._lock:
            first = [item for item, _ in zip(self._open, range(count), strict=False)]
            return [self._with_place(self._questions[item]) for item in first]

    def skips(self, item: str) -> int:
        """How often a question was put off."""
        return self._skips.get(item, 0)

    @property
    def complete(self) -> bool:
        """Whether nothing is left for whoever attends."""
        return not self._open

    @property
    def can_undo(self) -> bool:
        """Whether anything was done in this round."""
        return bool(self._history)

    def wait(self, seconds: float | None = None) -> bool:
        """Until the round is complete, or so long; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self.complete, seconds)

    def tally(self) -> Tally:
        """How far the round is."""
        with self._lock:
            known = [(a, self._questions[a.item].guess) for a in self._answers.values()]
            guessed = [a.name == guess for a, guess in known if guess is not None and a.name is not None]
            spent = [a.seconds for a, _ in known[-RECENT:] if a.seconds is not None]
            total = len(self._questions)
            return Tally(
                done=total - len(self._open),
                total=total,
                skipped=sum(count > 0 and item in self._open for item, count in self._skips.items()),
                unsure=sum(a.name is None for a, _ in known),
                agreed=sum(guessed),
                guessed=len(guessed),
                seconds=statistics.median(spent) if spent else None,
            )

    def points(self, image: str) -> list[PixelLabel]:
        """What is labelled in an image so far, this round's included."""
        with self._lock:
            mine = [q for q in self.placed(image) if q.item in self._answers]
            found = [(q, self._answers[q.item]) for q in mine]
            return self.labels.of(image) + [
                PixelLabel(
                    q.item, image, int(q.y or 0), int(q.x or 0), a.name, self.number, self.source, a.who, a.seconds
                )
                for q, a in found
            ]

    # What is answered

    def answer(self, item: str, name: str | None, who: str, seconds: float | None = None) -> None:
        """The class of a pixel, None for "can't tell"; the same answer again changes nothing."""
        with self._changed:
            given = Answer(item, name, who, seconds)
            if name is not None and name not in self.classes.index:
                raise NotOpen(f"{name!r} is no class; there are {', '.join(self.classes.names)}.")
            before = self._answers.get(item)
            if before is not None and (before.name, before.who) == (name, who):
                return
            if item not in self._open or self._with_place(self._questions[item]).y is None:
                raise NotOpen(f"The item {item} does not wait for an answer.")
            self._done(as_events([given]))

    def pick(self, item: str, y: int, x: int, who: str) -> None:
        """The pixel of a question that has none yet."""
        self.pick_all([(item, y, x)], who)

    def pick_all(self, picks: Iterable[tuple[str, int, int]], who: str) -> None:
        """Several picks, written together."""
        with self._changed:
            picks, taken = list(picks), set(self._taken)
            for item, y, x in picks:
                if item in self._places and self._places[item] == (y, x):
                    continue
                question = self._questions.get(item)
                if question is None or question.y is not None or item in self._places:
                    raise NotOpen(f"The item {item} does not wait for a pick.")
                height, width = self.sizes[question.image]
                if not (0 <= y < height and 0 <= x < width):
                    raise NotOpen(f"(y {y}, x {x}) lies outside the image of {height}x{width}.")
                if (question.image, y, x) in taken or any((p.y, p.x) == (y, x) for p in self.labels.of(question.image)):
                    raise NotOpen(f"The pixel (y {y}, x {x}) of {question.image} was asked already.")
                taken.add((question.image, y, x))
            new = [pick for pick in picks if pick[0] not in self._places]
            self._done([{**_event("picked", item, who), "y": y, "x": x} for item, y, x in new])
            self._taken = taken

    def skip(self, item: str, who: str) -> None:
        """Ask it later."""
        with self._changed:
            if item not in self._open:
                raise NotOpen(f"The item {item} does not wait for an answer.")
            self._done([_event("skipped", item, who)])

    def undo(self, who: str) -> None:
        """Take back what was done last in this round; its question is the next one."""
        with self._changed:
            if not self._history:
                raise NotOpen("There is nothing to take back in this round.")
            what, item = self._history[-1]
            event = {**_event("retracted", item, who), "what": what}
            self._write([event])
            if what == "answered":
                del self._answers[item]
            elif what == "picked":
                self._taken.discard((self._questions[item].image, *self._places.pop(item)))
            was_open = item in self._open
            self._follow(event)
            self._advance(0 if was_open else -1)

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

    # What the model thinks

    def predicted(self, image: str) -> np.ndarray | None:
        """The class values that the last round's model sees in an image, int64 [H, W]; None before there is one."""
        return self.looking.predicted(image)

    def utility(self, image: str) -> np.ndarray | None:
        """How much a label would teach it, float [H, W]."""
        return self.looking.utility(image)

    def noise(self, purpose: str, image: str) -> np.ndarray:
        """Uniform numbers in [0, 1), float64 [H, W], keyed by seed, round, purpose and image."""
        return self.looking.noise(purpose, image, self.sizes[image])

    def _with_place(self, question: Question) -> Question:
        if question.y is not None or question.item not in self._places:
            return question
        y, x = self._places[question.item]
        return question._replace(y=y, x=x)

    def _is_open(self, item: str) -> bool:
        placed = self._questions[item].y is not None or item in self._places
        return not placed or (self.asks_class and item not in self._answers)

    def _done(self, events: Sequence[Event]) -> None:
        """Write what was done, and only then hold it for done."""
        self._write(events)
        self._answers |= fold(events)
        self._places |= places(events)
        for event in events:
            item, was_open = event["item"], event["item"] in self._open
            self._follow(event)
            if was_open and not self._is_open(item):
                del self._open[item]
                self._advance(1)
        self._changed.notify_all()

    def _follow(self, event: Event) -> None:
        """The order of what is open and of what can be undone, after an event."""
        kind, item = event["event"], event["item"]
        if kind == "retracted":
            done = (event.get("what", "answered"), item)
            if done in self._history:
                del self._history[len(self._history) - 1 - self._history[::-1].index(done)]
            if done[0] == "skipped":
                self._skips[item] -= 1
            self._open[item] = None
            self._open.move_to_end(item, last=False)
            return
        self._history.append(("answered" if kind == "unsure" else kind, item))
        if kind == "skipped":
            self._skips[item] = self._skips.get(item, 0) + 1
            self._open.move_to_end(item)

    def _write(self, events: Sequence[Event]) -> None:
        if events:
            self._journal.append(events)


def _event(kind: str, item: str, who: str) -> dict[str, Any]:
    return {"event": kind, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "item": item, "who": who}
