"""What the page shows: the open round, or why there is none."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from alseg.answering import NotOpen, OpenRound
from alseg.attending import closing
from alseg.colours import colours_of
from alseg.store import name_of
from alseg.values import Question
from alseg_human.pictures import Pictures

AHEAD = 12  # questions that a page knows ahead
OTHERS = "What is left is with somebody else, or must be answered by another person."
ALONE = "If nobody comes, stop alseg with Ctrl-C: {command} makes do with what is in."
LAST = "That was this round's last question: Undo (Backspace) takes it back, else it goes on in a moment."
WATCHING = 5.0  # seconds since its last request for which a page counts as open


class Desk:
    """The state behind the page; its methods are called from the server's threads and from the run's."""

    def __init__(self, round: OpenRound, beyond: bool) -> None:
        self._beyond = beyond  # whether the page is served beyond this machine
        self.run, self._folder = round.folder.path, round.folder
        self._session = secrets.token_hex(8)
        self._run_id = name_of(self._folder.settings().get("record")) or self._session  # which no other run has
        self._index = {round.images.key(i): i for i in range(len(round.images))}
        self.keys = list(self._index)
        self.pictures = Pictures(round.images)
        self._classes, self._rounds = round.classes, round.rounds
        self._round: OpenRound | None = None
        self._last = round  # the one that was open last
        self._tally = round.tally()
        self._places: dict[str, tuple[int, int]] = {}  # of an item among its image's, and how many these are
        self._number, self._paused, self._message = round.number, time.monotonic(), ""
        self._over = ""  # once this process asks nothing more: "stopped", with a whole round "answered", or "finished"
        self._seen: dict[str, float] = {}  # when each open page asked last
        self._heard: set[str] = set()  # those that know that it is over
        self._picks = False  # whether the round's pixels are picked
        self._lock = threading.Lock()

    @property
    def asks_name(self) -> bool:
        """Whether people are told apart by the name that they give."""
        round = self._round
        return self._beyond or (round is not None and round.several)

    def open(self, round: OpenRound) -> None:
        """A round can be answered from now on."""
        with self._lock:
            self._round, self._last, self._number = round, round, round.number
            self._places = _places(round)
            self._picks = any(question.y is None for question in round.unplaced())

    def pause(self) -> None:
        """The round is complete; the model is trained now."""
        with self._lock:
            if self._round is not None:
                self._tally = self._round.tally()
            self._round, self._paused = None, time.monotonic()

    def finish(self, message: str, done: bool) -> None:
        """This process asks nothing more; done: nor will another of the run."""
        with self._lock:
            waits = self._round is not None
            self._round, self._message = None, message
            self._over = "finished" if done else "stopped" if waits else "answered"

    def pages(self) -> set[str]:
        """The pages that are open; a program is none."""
        now, seen = time.monotonic(), self._seen.copy()  # requests add pages meanwhile
        return {page for page, last in seen.items() if page and now - last < WATCHING}

    def all_heard(self) -> bool:
        """Whether every open page knows that it is over."""
        return self.pages() <= self._heard

    @property
    def round(self) -> OpenRound:
        """The open round; NotOpen where there is none."""
        round = self._round
        if round is None:
            raise NotOpen("Nothing is asked now.")
        return round

    def check_run(self, run_id: str) -> None:
        """NotOpen where a page is of another run, which was served here before; "" is a program that does not say."""
        if run_id not in ("", self._run_id):
            raise NotOpen(f"The page is of another run than {self.run.resolve().name}: load it again.")

    def once(self, act: str | None, do: Callable[[], None]) -> None:
        """Do what a page asks for, but for the second time; NotOpen where no round is open to do it in."""
        if not self._last.knows(act):  # a reply may have been lost after which no round is open
            self.round.once(act, do)

    def state(self, who: str, page: str = "", whole: bool = True) -> dict[str, Any]:
        """What the page of a person must know; `whole`: with what does not change in a round."""
        self._seen[page] = time.monotonic()
        if self._over:
            self._heard.add(page)
        round = self._round
        queue = round.queue(AHEAD, who) if round and who else []
        state: dict[str, Any] = {
            "session": self._session,
            "run": self.run.resolve().name,
            "run_id": self._run_id,
            "round": self._number,
            "phase": self._over or ("training" if round is None else "labelling"),
            "message": self._said(round, who, bool(queue)),
            "who": who,
            "asks_name": self.asks_name,
            "training": None if round is not None or self._over else self._training(),
            "picks": self._picks,
            "asks_class": round.asks_class if round else True,
            "has_model": round.looking.there if round else False,
            "progress": asdict(round.tally() if round else self._tally),
            "queue": [self._item(round, question) for question in queue] if round else [],
            "can_undo": round.can_undo(who) if round else False,
        }
        return state | self._constant() if whole or round is None else state

    def _said(self, round: OpenRound | None, who: str, queue: bool) -> str | None:
        if round is None or queue or not who:
            return self._message or None
        if round.complete:
            return LAST
        people = round.lacking().said()
        return " ".join([OTHERS, people, ALONE.format(command=closing(round.folder))] if people else [OTHERS])

    def _constant(self) -> dict[str, Any]:
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours_of(self._classes)]
        history = ("round", "miou", "labelled_pixels")
        return {
            "rounds": self._rounds,
            "classes": [{"name": n, "colour": c} for n, c in zip(self._classes.names, colours, strict=True)],
            "history": [{key: record[key] for key in history} for record in self._folder.rounds()],
        }

    def _training(self) -> dict[str, float | None]:
        records = self._folder.rounds()
        spent = ("train_seconds", "acquire_seconds", "evaluate_seconds")
        expected = sum(records[-1][key] for key in spent) if records else None
        return {"seconds_so_far": time.monotonic() - self._paused, "expected_seconds": expected}

    def _item(self, round: OpenRound, question: Question) -> dict[str, Any]:
        height, width = round.sizes[question.image]
        shown = ("item", "y", "x", "guess", "probability", "rival", "utility", "rank")
        item = {name: getattr(question, name) for name in shown}
        place = {"image": self._index[question.image], "name": question.image, "height": height, "width": width}
        number, of = self._places.get(question.item, (None, None))  # none: shown another time
        more = {"skips": round.skips(question.item), "number": number, "of": of}
        return item | place | more | {"blind": round.is_blind(question.item)}


def _places(round: OpenRound) -> dict[str, tuple[int, int]]:
    """Each item's number among those of its image, from 1, and how many there are."""
    by_image: dict[str, list[str]] = {}
    for question in round.placed():
        by_image.setdefault(question.image, []).append(question.item)
    return {item: (number, len(items)) for items in by_image.values() for number, item in enumerate(items, 1)}
