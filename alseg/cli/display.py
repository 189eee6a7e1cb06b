"""Progress and results in a terminal, and plain lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import progress as bars
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from alseg.progress import Progress, Step

if TYPE_CHECKING:
    from alseg.api import RunResult
    from alseg.interchange.exchange import Transfer

BLOCKS = "▁▂▃▄▅▆▇█"


class TerminalProgress:
    """A bar with the speed and the time left, and below it the learning curve so far."""

    def __init__(self, live: Live) -> None:
        columns = (
            bars.TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            bars.BarColumn(bar_width=12),
            bars.TaskProgressColumn(),
            bars.TimeRemainingColumn(),
            Speed(table_column=Column(no_wrap=True)),
            bars.TextColumn("{task.fields[word]}", table_column=Column(no_wrap=True)),
        )
        self._display, self._live = bars.Progress(*columns, console=live.console), live
        live.update(self._display)

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

    def scored(self, records: Sequence[Mapping[str, Any]], rounds: int) -> None:
        """The curve so far, and how long the rest may take."""
        self._live.update(Group(self._display, Text(so_far(records, rounds), no_wrap=True)))

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._live.console.print(line, highlight=False, markup=False)


class Speed(bars.ProgressColumn):
    """Images a second."""

    def render(self, task: bars.Task) -> Text:
        """Nothing until it is known."""
        return Text("" if not task.speed else f"{task.speed:.3g}/s")


def so_far(records: Sequence[Mapping[str, Any]], rounds: int) -> str:
    """The finished rounds in a line: how many, their mean IoU as bars and numbers, the time left."""
    if not records:
        return f"round 1 of {rounds}"
    line = f"{len(records)} of {rounds} rounds"
    scores = [100 * record["miou"] for record in records if record["miou"] is not None]
    if scores:
        low, high = min(scores), max(scores)
        heights = "".join(BLOCKS[round(7 * (score - low) / max(high - low, 1e-9))] for score in scores)
        line += f"   mIoU % {heights} " + " ".join(f"{score:.1f}" for score in scores[-6:])
    keys = ("train_seconds", "acquire_seconds", "evaluate_seconds")
    spent = sum(record[key] for record in records for key in keys)
    left = spent / len(records) * (rounds - len(records))
    return line + (f"   about {duration(left)} left" if left else "")


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min or 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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

    def scored(self, records: Sequence[Mapping[str, Any]], rounds: int) -> None:
        """Nothing: each round says its own line."""

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
    with Live(console=console, transient=True, refresh_per_second=8) as live:
        yield TerminalProgress(live)


def whole(table: Table) -> Console:
    """A console that is at least as wide as the table, since half a number is worse than a long line."""
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    return Console(width=max(console.width, needed))


def show_table(table: Table) -> None:
    """A table folded to a terminal's width; elsewhere as wide as it is, without blanks at the ends of lines."""
    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    console = whole(table)
    with console.capture() as said:
        console.print(table)
    for line in said.get().splitlines():
        print(line.rstrip())


def show_result(result: RunResult, as_json: bool) -> None:
    """The table of rounds, the picture and the folder; or all of it as JSON."""
    if as_json:
        curve = None if result.curve is None else str(result.curve)
        page = None if result.report is None else str(result.report)
        print(json.dumps({"run": str(result.folder), "curve": curve, "report": page, "rounds": result.rounds}))
        return
    from alseg.report.table import table_rows

    header, *rows = table_rows(result.rounds)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*row)
    console = whole(table)
    console.print(table)
    lines: list[tuple[str, Any]] = [("learning curve", result.curve), ("report", result.report), ("run", result.folder)]
    for name, path in lines:
        if path is not None:
            console.print(f"{name}: {path}", highlight=False, markup=False, soft_wrap=True)


def show_transfer(done: Transfer, as_json: bool) -> None:
    """What was written of labels, or all of it as JSON; what was lost is said on stderr."""
    for note in done.notes:
        print(f"alseg: {note}", file=sys.stderr)
    if as_json:
        facts = {"labels": done.labels, "images": done.images, "notes": list(done.notes)}
        print(json.dumps({"out": str(done.path), **facts}))
    else:
        print(f"{done.labels} labels of {done.images} images: {done.path}")
