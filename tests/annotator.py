"""A program at the page's HTTP interface, in place of a person."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import alseg
from alseg.answering import Attendance
from alseg.progress import Quiet

Item = dict[str, Any]
PATIENCE = 120.0  # seconds


class Listening(Quiet):
    """Progress that finds the page's address."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def address(self) -> str:
        """Once it is said."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for line in self.lines:
                found = re.search(r"http://\S+/\S*", line)
                if found:
                    return found.group()
            time.sleep(0.01)
        raise AssertionError("no address was said")


class Working(threading.Thread):
    """A call in a thread; `done` gives its result or raises what it raised."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._call, self._result, self._error = call, None, None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def done(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self._error is not None:
            raise self._error
        return self._result


@contextlib.contextmanager
def served(settings: dict[str, Any], out: Path, **attendance: Any) -> Iterator[tuple[httpx.Client, Working]]:
    """A run that waits at its page: a client of the page, and the run."""
    listening = Listening()
    how = Attendance(**{"browser": False, **attendance})
    work = Working(lambda: alseg.run(settings, out=out, attendance=how, progress=listening))
    while work.is_alive() and not any("http://" in line for line in listening.lines):
        time.sleep(0.01)
    if not work.is_alive():
        work.done()
    try:
        with httpx.Client(base_url=listening.address(), timeout=30) as client:
            yield client, work
    finally:
        from alseg_human.server import stop_page

        stop_page(out)


def post(client: httpx.Client, act: str, /, **given: Any) -> dict[str, Any]:
    """An act that must be taken."""
    reply = client.post(f"/api/{act}", json=given)
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer_all(client: httpx.Client, name_of: Callable[[Item], str | None], rounds: int | None = None) -> int:
    """Answer what is asked until nothing more is, or for so many rounds; how many answers that were."""
    answers, last = 0, -1
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            state = client.get("/api/state").json()
        except httpx.HTTPError:
            return answers  # the run is over
        if state["phase"] == "finished" or (rounds is not None and state["round"] >= rounds):
            return answers
        while state["queue"]:
            item = state["queue"][0]
            name = name_of(item)
            given = {"item": item["item"], "seconds": 0.5}
            state = post(client, "answer", **given, **{"class": name}) if name else post(client, "unsure", **given)
            answers += 1
        last = state["round"]
        time.sleep(0.02)
    raise AssertionError(f"still in round {last}")


def by_masks(folder: Path, classes: tuple[str, ...]) -> Callable[[Item], str | None]:
    """Answers from mask files; None where there is void."""
    masks: dict[str, np.ndarray] = {}

    def name_of(item: Item) -> str | None:
        if item["name"] not in masks:
            masks[item["name"]] = np.asarray(Image.open(folder / f"{item['name']}.png"))
        value = int(masks[item["name"]][item["y"], item["x"]])
        return classes[value] if value < len(classes) else None

    return name_of
