"""The runs of a comparison as they go, in a terminal or as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.live import Live
from rich.table import Table
from rich.text import Text

from alseg.cli.display import duration
from alseg.compare.jobs import WAITS, Job, log_of
from alseg.errors import AlsegError
from alseg.store import SETTINGS, read_lines

LOOK_EVERY = 1.0  # seconds between two looks at the runs' files
MOST_ROWS = 16


class Overview:
    """Counts jobs, looks at the files of those that are being done, and shows them; live None: plain lines."""

    def __init__(self, jobs: Sequence[Job], logs: Path, live: Live | None = None) -> None:
        self._jobs, self._logs, self._live = list(jobs), logs, live
        self._begun: dict[str, float] = {}
        self._running: dict[str, Job] = {}
        self._spent: list[float] = []
        self._ended: set[str] = set()
        self._start, self._looked = time.monotonic(), 0.0
        self.errors: dict[str, str] = {}  # by the job's name
        self.waiting: dict[str, str] = {}  # and what those say that wait for answers

    @property
    def done(self) -> int:
        """How many jobs have ended, well or not."""
        return len(self._spent) + len(self.errors) + len(self.waiting)

    def refuse_forgotten(self, executor: str) -> None:
        """AlsegError where an executor has returned without a word on a job, or said done of one never begun."""
        forgotten = [job.name for job in self._jobs if job.name not in self._ended]
        if forgotten:
            raise AlsegError(
                f"{executor} returned without a word on {len(forgotten)} of {len(self._jobs)} jobs, the first of them "
                f"{forgotten[0]}: it must call watch.finished(job, error) for each. The same command goes on."
            )
        ended = (job for job in self._jobs if job.name not in self.errors and job.name not in self.waiting)
        undone = [job.name for job in ended if not (Path(job.folder) / SETTINGS).exists()]
        if undone:
            raise AlsegError(
                f"{executor} said of {len(undone)} of {len(self._jobs)} jobs that they are done, the first of them "
                f"{undone[0]}, and their runs were never begun: it must carry them out. The same command goes on."
            )

    def started(self, job: Job) -> None:
        """A line, or a row from now on."""
        self._begun[job.name], self._running[job.name] = time.monotonic(), job
        if self._live is None:
            self._say(f"{job.name}: begun")

    def finished(self, job: Job, error: str | None) -> None:
        """How it went, and how much is left; TypeError for an error that is no sentence."""
        if error is not None and not isinstance(error, str):
            raise TypeError(
                f"watch.finished(job, error) takes None or a sentence on what went wrong, not {error!r:.80}"
            )
        self._running.pop(job.name, None)
        self._ended.add(job.name)
        spent = time.monotonic() - self._begun.get(job.name, time.monotonic())
        if error is None:
            self._spent.append(spent)
            line = f"{job.name}: {standing(job)}, {duration(spent)}"
            self._say(line if self._live is not None else f"{line}; {self._count()}")
        elif wait := self._wait(job, str(error)):
            self.waiting[job.name] = wait
            self._say(f"{job.name}: waits: {wait}", "yellow")
        else:
            self.errors[job.name] = str(error)
            self._say(f"{job.name}: failed: {error}", "red")

    def _wait(self, job: Job, error: str) -> str:
        """What a job waits for that has not failed; empty for one that has."""
        if job.after in self.waiting and job.name not in self._begun:
            return f"{job.after} waits, with which it begins"
        return error.removeprefix(WAITS) if error.startswith(WAITS) else ""

    def tick(self) -> None:
        """Look at the files and show what they say, now and then."""
        now = time.monotonic()
        if self._live is None or now - self._looked < LOOK_EVERY:
            return
        self._looked = now
        table = Table(box=None, pad_edge=False, show_header=False)
        for job in list(self._running.values())[:MOST_ROWS]:
            table.add_row(
                Text(job.name, no_wrap=True),
                Text(standing(job), no_wrap=True),
                Text(last_line(log_of(self._logs, job)), style="dim", no_wrap=True, overflow="ellipsis"),
            )
        grid = Table.grid()
        grid.add_row(Text(self._count(), style="bold"))
        grid.add_row(table)
        self._live.update(grid)

    def _count(self) -> str:
        """How many of all are done, and the time left."""
        total, left = len(self._jobs), len(self._jobs) - self.done
        words = f"{self.done} of {total} jobs"
        if self.errors:
            words += f", {len(self.errors)} failed"
        if self.waiting:
            words += f", {len(self.waiting)} wait for answers"
        if self._spent and left:
            words += f", about {duration((time.monotonic() - self._start) / self.done * left)} left"
        return words

    def _say(self, line: str, style: str = "") -> None:
        """A line that stays."""
        if self._live is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._live.console.print(line, style=style, highlight=False, markup=False)


def standing(job: Job) -> str:
    """How many rounds a job's run has, and their mean IoU."""
    try:
        scores = [record.get("miou") for record in read_lines(Path(job.folder) / "rounds.jsonl")]
    except (OSError, AlsegError):
        scores = []
    if not scores:
        return "no round yet"
    rounds = f"{len(scores)} round{'s' * (len(scores) != 1)}"
    known = [f"{100 * score:.1f}" for score in scores if score is not None]
    return f"{rounds}, mIoU % {' '.join(known[-6:])}" if known else rounds


def last_line(path: Path) -> str:
    """The last line of a file, without reading all of it."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 400))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
