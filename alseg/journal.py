"""Answers as an append-only journal of events, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alseg.errors import Lasting
from alseg.values import Answer

Event = dict[str, Any]


class Journal:
    """A file of events. What is appended together is written with one fsync; a torn end is cut off."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def events(self) -> list[Event]:
        """All whole events; a line that is no event names its number."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn
        try:
            events: list[Event] = json.loads(b"[" + b",".join(lines) + b"]")  # at once: twice as fast
            if len(events) == len(lines) and all(map(_is_event, events)):
                return events
        except (ValueError, RecursionError):
            pass
        for number, line in enumerate(lines, 1):
            try:
                sound = _is_event(json.loads(line))
            except (ValueError, RecursionError):
                sound = False
            if not sound:
                raise Lasting(f"Line {number} of {self._path} is no journal event.")
        return [json.loads(line) for line in lines]

    def append(self, events: Iterable[Event]) -> None:
        """Write events that belong together; they are on the disk when this returns."""
        self._cut_torn_end()
        text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
        with open(self._path, "ab") as file:
            file.write(text.encode("utf-8", "surrogatepass"))
            file.flush()
            os.fsync(file.fileno())

    def _cut_torn_end(self) -> None:
        if not self._path.exists():
            return
        with open(self._path, "rb+") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            if file.read() in (b"\n", b""):
                return
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _is_event(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("event"), str) and isinstance(found.get("item"), str)


def event_of(kind: str, item: str, who: str) -> Event:
    """An event of this moment."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"event": kind, "time": now, "item": item, "who": who}


def as_events(answers: Sequence[Answer]) -> list[Event]:
    """Answers as `answered` and `unsure` events of this moment."""
    events = []
    for answer in answers:
        event = event_of("answered" if answer.name is not None else "unsure", answer.item, answer.who)
        if answer.name is not None:
            event["class"] = answer.name
        events.append(event | {"seconds": answer.seconds})
    return events


def answer_of(event: Event) -> Answer:
    """What an `answered`, `unsure` or `vote` event says."""
    name = str(event.get("ask", event["item"]))
    return Answer(name, event.get("class"), event.get("who", ""), event.get("seconds"))


def resolved(votes: Sequence[Answer]) -> Answer:
    """What several people's answers to one question come to: the class with most votes.

    "Can't tell" counts as a class; where two have most, nobody can tell. Seconds are all voters' together.
    """
    item = votes[0].item.partition("/")[0]
    if len(votes) == 1:
        return votes[0]._replace(item=item)
    counts = Counter(vote.name for vote in votes).most_common(2)
    tied = len(counts) > 1 and counts[0][1] == counts[1][1]
    seconds = [vote.seconds for vote in votes if vote.seconds is not None]
    who = ", ".join(dict.fromkeys(vote.who for vote in votes))
    return Answer(item, None if tied else counts[0][0], who, sum(seconds) if seconds else None)


def final_asks(events: Iterable[Event]) -> dict[str, Answer]:
    """The last answer to each showing of each item that was not taken back; Lasting where an event is unknown."""
    state: dict[str, Answer] = {}
    for event in events:
        kind = event["event"]
        if kind in ("answered", "unsure", "vote"):
            state[str(event.get("ask", event["item"]))] = answer_of(event)
        elif kind == "retracted":
            if event.get("what", "answered") == "answered":
                state.pop(str(event.get("ask", event["item"])), None)
        elif kind not in ("picked", "skipped", "closed"):
            raise Lasting(f"The journal holds an unknown event {kind!r} of item {event['item']}.")
    return state


def closed_items(events: Iterable[Event]) -> set[str]:
    """Items that wait for no further vote; one that is taken back opens its item again."""
    closed: set[str] = set()
    for event in events:
        if event["event"] == "closed":
            closed.add(event["item"])
        elif event["event"] == "retracted" and reopens(event):
            closed.discard(event["item"])
    return closed


def reopens(event: Event) -> bool:
    """Whether a `retracted` event takes a vote back: no pick, no skip, and no answer that was given again."""
    return event.get("what", "answered") == "answered" and not str(event.get("ask", "")).endswith("/again")


def fold(events: Iterable[Event], people: Mapping[str, int] | None = None) -> dict[str, Answer]:
    """The answer of each item: its last event counts, and `retracted` reopens it; votes are resolved by `resolved`.

    people: of how many people an item is asked, where that is more than one. With fewer votes it has no answer,
    unless it was closed with those that are in. Answers that were asked for again, blind, change nothing.
    """
    events = list(events)
    asks = final_asks(events)
    state = {item: answer for item, answer in asks.items() if "/" not in item}
    votes: dict[str, dict[str, Answer]] = {}  # of items that somebody else answered, by turn
    for ask in (ask for ask in asks if "/" in ask):
        item, _, turn = ask.partition("/")
        if turn != "again":
            votes.setdefault(item, {"": state[item]} if item in state else {})[turn] = asks[ask]
    for item, given in votes.items():
        state[item] = resolved([given[turn] for turn in sorted(given, key=lambda turn: (len(turn), turn))])
    closed = closed_items(events) if people else set()
    for item, wanted in (people or {}).items():
        if item not in closed and len(votes.get(item, ("first",))) < wanted:
            state.pop(item, None)
    return state


def places(events: Iterable[Event]) -> dict[str, tuple[int, int]]:
    """The pixel (y, x) of each item that somebody picked."""
    found: dict[str, tuple[int, int]] = {}
    for event in events:
        if event["event"] == "picked":
            try:
                found[event["item"]] = int(event["y"]), int(event["x"])
            except (KeyError, TypeError, ValueError) as error:
                raise Lasting(f"The journal's pick of item {event['item']} has no pixel.") from error
        elif event["event"] == "retracted" and event.get("what") == "picked":
            found.pop(event["item"], None)
    return found
