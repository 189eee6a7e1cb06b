"""What an executor of a comparison's runs must do."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from alseg.calling import described
from alseg.compare.jobs import Job, log_of
from alseg.config import resolve
from alseg.errors import UserMistake
from alseg.plugins import Registry
from alseg.store import RunFolder
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Contract, Inapplicable, Report, require
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.testing.tiny import NAME, PLUGIN
from alseg.testing.tiny_runs import tiny_registry

SOON = 30.0  # seconds, long even for a cluster that is let go
ENDLESS = 60  # seconds that a job takes which is to be ended before
SLEEPER = f"""
import time
from alseg import hookimpl

def sleeper():
    time.sleep({ENDLESS})
    raise RuntimeError("nobody ended the job")

@hookimpl
def register_oracles(register):
    register("sleeper", sleeper)
"""


@dataclass
class Told:
    """What a `Watch` is told, in order: ("started" or "finished", the job's name, the error)."""

    events: list[tuple[str, str, str | None]] = field(default_factory=list)
    ticks: int = 0

    def started(self, job: Job) -> None:
        """The job is being done."""
        self.events.append(("started", job.name, None))

    def finished(self, job: Job, error: str | None) -> None:
        """The job is done."""
        self.events.append(("finished", job.name, error))

    def tick(self) -> None:
        """Time passes."""
        self.ticks += 1

    def error(self, name: str) -> str | None:
        """What a job ended with."""
        return next(error for what, job, error in self.events if what == "finished" and job == name)


@dataclass
class Interrupting(Told):
    """A watch that hears of Ctrl-C at its first tick; at: when that was."""

    at: float = 0.0

    def tick(self) -> None:
        """Ctrl-C comes."""
        self.at = self.at or time.monotonic()
        raise KeyboardInterrupt


@dataclass
class OfExecutor:
    """An executor, and what came of a few jobs that it was given: a first round, a run after it, two that fail."""

    subject: Subject
    place: Path

    @cached_property
    def jobs(self) -> list[Job]:
        """Each with its folder."""
        settings = _settings(rounds=2)
        once, broken = {**settings, "rounds": 1}, {**settings, "seed": "none at all"}

        def job(name: str, settings: dict[str, Any], **more: Any) -> Job:
            return Job(name, str(self.place / "runs" / name), settings, plugins=(str(PLUGIN),), **more)

        first = str(self.place / "runs" / "first")
        return [
            job("first", once),
            job("second", settings, first=first, after="first"),
            job("broken", broken),
            job("never", settings, first=str(self.place / "runs" / "broken"), after="broken"),
        ]

    def endless(self) -> Job:
        """A job that goes on until somebody ends it, or a minute has passed."""
        file = self.place / "sleeper.py"
        file.write_text(SLEEPER, encoding="utf-8")
        settings = _settings(file, oracle="sleeper")
        return Job("endless", str(self.place / "runs" / "endless"), settings, plugins=(str(PLUGIN), str(file)))

    @cached_property
    def told(self) -> Told:
        """All jobs carried out."""
        watch = Told()
        given = built(self.subject)(self.jobs, self.place / "logs", watch)
        require(given is None, f"the call gave {described(given)}", "tell the watch, and return nothing")
        return watch


def _settings(*plugins: Path, **settings: Any) -> dict[str, Any]:
    """Those of a tiny run, with these besides."""
    tiny = {"dataset": NAME, "model": NAME, "recipe": NAME}
    return resolve(tiny_registry(plugins), {}, {**tiny, **settings}).config.nested()


CONTRACT: Contract[OfExecutor] = Contract("executor")


@explains_wrong_calls
def check_executor(
    executor: What,
    options: Mapping[str, Any] | None = None,
    *,
    place: Path | None = None,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check an executor by the factory that is registered, or by its name; raises ContractError.

    It is given four small jobs, of which one fails. place: an empty folder that it can reach; None: a temporary one.
    """
    if place is not None and not (place.is_dir() and next(place.iterdir(), None) is None):
        raise UserMistake(f"The argument place of check_executor takes an empty folder, which {place} is not.")
    subject = subject_of("executor", executor, options, name=name, around=around, registry=registry)
    with tempfile.TemporaryDirectory() as temporary:
        return CONTRACT.judge(OfExecutor(subject, place or Path(temporary)), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfExecutor) -> None:
    """The factory gives something that can be called with jobs, a folder for logs and a watch."""
    made = built(of.subject)
    require(callable(made), f"the factory gave {described(made)}", "give __call__(jobs, logs, watch)")


@CONTRACT.check("finishes", basic=True)
def _finishes(of: OfExecutor) -> None:
    """It returns when all jobs have ended, and the watch was told of each once."""
    for job in of.jobs:
        ends = [event for event in of.told.events if event[:2] == ("finished", job.name)]
        require(
            len(ends) == 1,
            f"the watch was told {len(ends)} times that the job {job.name!r} finished",
            "call watch.finished(job, error) once for each job, done, failed or given up",
        )
        error = ends[0][2]
        require(
            error is None or isinstance(error, str),
            f"the job {job.name!r} finished with {error!r} as its error",
            "give None or a sentence on what went wrong, such as str(error)",
        )


@CONTRACT.check("done")
def _done(of: OfExecutor) -> None:
    """Jobs are carried out to their end, and their errors are None."""
    for name, rounds in (("first", 1), ("second", 2)):
        error, folder = of.told.error(name), of.place / "runs" / name
        require(error is None, f"the job {name!r} ended with {error!r}", "call alseg.compare.jobs.carry_out(job)")
        found = len(RunFolder(folder).rounds()) if (folder / "run.toml").exists() else 0
        require(found == rounds, f"the job {name!r} left {found} rounds of {rounds}", "report a job when it has ended")


@CONTRACT.check("order")
def _order(of: OfExecutor) -> None:
    """A job starts before it finishes, and after the job that it names has finished."""
    order = [event[:2] for event in of.told.events]
    for job in of.jobs[:3]:
        require(("started", job.name) in order, f"{job.name!r} was never told as started", "call watch.started(job)")
        begun = order.index(("started", job.name))
        require(begun < order.index(("finished", job.name)), f"{job.name!r} finished before it began", "tell in order")
        require(
            job.after is None or order.index(("finished", job.after)) < begun,
            f"{job.name!r} began before {job.after!r} had finished, whose first round it takes",
            "hold jobs back until the job they name in `after` has finished",
        )


@CONTRACT.check("failure")
def _failure(of: OfExecutor) -> None:
    """A job that fails is told with a sentence, the others go on, and one that is after it is not begun."""
    error = of.told.error("broken")
    require(
        isinstance(error, str) and error.strip(),
        f"a job that fails ended with {error!r}",
        "say what went wrong",
    )
    require(of.told.error("never"), "a job after one that failed ended without error", "give it up with a sentence")
    require(
        ("started", "never", None) not in of.told.events,
        "a job was begun though the one that it is after had failed",
        "give up what comes after a job that failed",
    )


@CONTRACT.check("logs")
def _logs(of: OfExecutor) -> None:
    """What a job prints goes to logs/NAME.log."""
    assert of.told
    for job in of.jobs[:3]:
        path = log_of(of.place / "logs", job)
        require(path.exists(), f"there is no {path.name} in the folder for logs", "use alseg.compare.jobs.log_of")


@CONTRACT.check("ticks")
def _ticks(of: OfExecutor) -> None:
    """The watch is ticked while jobs are done, so that Ctrl-C and the screen are served."""
    require(of.told.ticks > 0, "watch.tick() was never called", "call it a few times a second")


@CONTRACT.check("interrupted")
def _interrupted(of: OfExecutor) -> None:
    """On Ctrl-C, which watch.tick() raises, it ends the jobs that go on, and soon lets the interruption through."""
    if not of.told.ticks:
        raise Inapplicable("it never calls watch.tick(), which the check ticks tells")
    watch, through = Interrupting(), False
    try:
        built(of.subject)([of.endless()], of.place / "logs", watch)
    except KeyboardInterrupt:
        through = True
    took = time.monotonic() - watch.at
    mend = "end the processes first, in a finally, and wait for what reads from them after that"
    require(took < SOON, f"it held on for {took:.0f} seconds after Ctrl-C, until the job ended by itself", mend)
    require(through, "it kept a KeyboardInterrupt of watch.tick() to itself", "let it through: compare ends by it")
