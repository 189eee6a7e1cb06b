"""Progress and results in a terminal, and plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.console import Console
from rich.table import Table

from alseg.progress import Progress, Step

if TYPE_CHECKING:
    from alseg.api import RunResult


class TerminalProgress:
    """A bar with the time left."""

    def __init__(self, console: Console, display: bars.Progress) -> None:
        self._console, self._display = console, display

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Step]:
        """A bar while the phase lasts."""
        task = self._display.add_task(name, total=total, word="")

        def step(done: int, word: str) -> None:
            self._display.advance(task, done)
            if word:
                self._display.update(task, word=word)

        try:
            yield step
        finally:
            self._display.remove_task(task)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, highlight=False, markup=False)


class PlainProgress:
    """A line when a phase has run for a while, and at its end."""

    every = 30.0  # seconds between lines

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[Step]:
        """Lines while the phase lasts."""
        started = shown = time.monotonic()
        done, word = 0, ""

        def step(more: int, what: str) -> None:
            nonlocal shown, done, word
            done, word, now = done + more, what or word, time.monotonic()
            if now - shown >= self.every and done:
                shown = now
                left = (now - started) * (total - done) / done
                self.say(f"{name}: {done} of {total}" + (f", {word}" if word else "") + f", {left:.0f} s left")

        yield step
        spent = time.monotonic() - started
        if spent >= 2:
            self.say(f"{name}: done in {spent:.0f} s" + (f", {word}" if word else ""))

    def say(self, line: str) -> None:
        """A line on stderr."""
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def terminal_progress() -> Iterator[Progress]:
    """What suits stderr: bars in a terminal, else plain lines."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield PlainProgress()
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[word]}"),
    )
    with bars.Progress(*columns, console=console, transient=True) as display:
        yield TerminalProgress(console, display)


def show_result(result: RunResult, as_json: bool) -> None:
    """The table of rounds, the picture and the folder; or all of it as JSON."""
    if as_json:
        curve = None if result.curve is None else str(result.curve)
        print(json.dumps({"run": str(result.folder), "curve": curve, "rounds": result.rounds}))
        return
    from alseg.report.curve import table_rows

    console = Console()
    header, *rows = table_rows(result.rounds)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    lines: list[tuple[str, Any]] = [("learning curve", result.curve), ("run", result.folder)]
    for name, path in lines:
        if path is not None:
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)
