"""What is to be done for a comparison, run by run, and how one job is carried out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alseg.compare.measures import ASKED
from alseg.compare.study import IN_STUDIES, Cell
from alseg.config import flatten, with_origins, without_record
from alseg.errors import UserMistake, Waiting
from alseg.plugin_files import changed_file
from alseg.plugins import Registry, load_plugins
from alseg.progress import Progress
from alseg.store import SETTINGS, RunFolder, new_name, write_toml
from alseg.telling import OWED
from alseg.trackers import only_trackers, without_trackers
from alseg.writing import appearing, write_whole

__all__ = ["Executor", "Job", "Watch", "carry_out", "log_of"]
WAITS = "Answers are missing: "  # what the sentence of a job begins with that did not fail, but waits for its oracle
EXTENDED = ("rounds", "budget")  # what may be more than a run was begun with


@dataclass(frozen=True)
class Job:
    """A run to be carried to its end.

    folder: the run's. settings: all of them, as run.toml holds them. first: the folder of a run whose only round
    this one begins with, or None. after: the name of the job that makes that. ask_only: ask once more after the first
    round, and train no further. plugins: single files; third_party: whether other people's plugins count.
    """

    name: str
    folder: str
    settings: Mapping[str, Any]
    first: str | None = None
    after: str | None = None
    ask_only: bool = False
    plugins: Sequence[str] = ()
    third_party: bool = True


class Watch(Protocol):
    """Told by an executor how its jobs go."""

    def started(self, job: Job) -> None:
        """The job is being done."""

    def finished(self, job: Job, error: str | None) -> None:
        """The job is done, or failed with a sentence.

        A sentence that begins with "Answers are missing: ", as `carry_out` gives it, is of a job that waits for them.
        """

    def tick(self) -> None:
        """Called a few times a second while jobs are being done."""


class Executor(Protocol):
    """Where the runs of a comparison take place."""

    def __call__(self, jobs: Sequence[Job], logs: Path, watch: Watch) -> None:
        """Carry out all jobs, each after the one it names; what a job prints goes to logs/NAME.log.

        A job whose `after` failed is not begun. When this is interrupted, no job goes on.
        """


def plan(
    cells: Sequence[Cell], out: Path, *, ask_only: bool = False, plugins: Sequence[Path] = (), third_party: bool = True
) -> list[Job]:
    """The jobs that complete the cells under `out`; what is complete is left out. Shared first rounds come first.

    Raises UserMistake where a folder holds a run with other settings, one whose rounds asked another number of pixels,
    or one that other code of a plugin file made.
    """
    common: Any = {"plugins": tuple(str(file) for file in plugins), "third_party": third_party}
    shared: dict[str, Job] = {}
    jobs: list[Job] = []
    for cell in cells:
        folder = out / "runs" / cell.name
        if (folder / SETTINGS).exists():
            check_same(folder, cell.settings)
            _check_schedule(folder, cell)
            _check_same_files(folder, plugins)
        if is_done(folder, cell, ask_only) and (ask_only or not _is_owed_its_end(folder, cell)):
            continue
        first = None
        if cell.first and not (folder / SETTINGS).exists():
            first = out / "first-rounds" / cell.first
            _check_same_files(first, plugins)
            if cell.first not in shared and not has_rounds(first, 1):
                shared[cell.first] = Job(
                    f"first round, {cell.first}", str(first), first_settings(cell.settings), **common
                )
                jobs.append(shared[cell.first])
        after = shared[cell.first].name if first is not None and cell.first in shared else None
        asks = ask_only and bool(cell.first)
        jobs.append(Job(cell.name, str(folder), cell.settings, str(first) if first else None, after, asks, **common))
    return jobs


def first_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings with its first round alone."""
    return {**settings, "rounds": 1}


def is_done(folder: Path, cell: Cell, ask_only: bool = False) -> bool:
    """Whether a cell's run, whose rounds ask what is wanted, is complete; ask_only: has asked after its first round."""
    if ask_only and cell.first:
        return (folder / ASKED).exists() or has_rounds(folder, 2)
    if has_rounds(folder, cell.rounds):
        return True
    run = RunFolder(folder) if (folder / SETTINGS).exists() else None
    return run is not None and run.questions(len(run.rounds())) == []  # nothing was left to ask


def has_rounds(folder: Path, rounds: int) -> bool:
    """Whether a folder holds a run that has finished so many rounds."""
    return (folder / SETTINGS).exists() and len(RunFolder(folder).rounds()) >= rounds


def untold(cells: Sequence[Cell], jobs: Sequence[Job], out: Path) -> list[Path]:
    """The runs that are complete and left alone, and whose trackers are others than those that are wanted now."""
    done = [cell for cell in cells if cell.name not in {job.name for job in jobs}]
    wanted = ((out / "runs" / cell.name, only_trackers(cell.settings)) for cell in done)
    return [path for path, now in wanted if now and only_trackers(RunFolder(path).settings()) != now]


def _is_owed_its_end(folder: Path, cell: Cell) -> bool:
    """Whether a run that is complete as the cell wants it was killed before its trackers heard of that."""
    if not (folder / OWED).exists():
        return False
    stored = RunFolder(folder).settings()
    return all(stored.get(name) == cell.settings.get(name) for name in EXTENDED)


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """UserMistake where a folder's run has other settings than wanted; more rounds may be, and other trackers."""
    stored = without_record(RunFolder(folder).settings())
    before, now = (flatten(without_trackers(each)) for each in (stored, settings))
    free = {*IN_STUDIES, *EXTENDED}
    for name in sorted(before.keys() | now.keys()):
        if name not in free and before.get(name) != now.get(name):
            stated = f"{name} = {before.get(name, 'none')}, not {now.get(name, 'none')}"
            raise UserMistake(f"{folder} was made with {stated}: give another --out, or move it away.")


def _check_schedule(folder: Path, cell: Cell) -> None:
    """UserMistake where a round of a folder's run asked another number of pixels than wanted, by another budget."""
    for round, (asked, wanted) in enumerate(zip(RunFolder(folder).asked(), cell.pixels, strict=False)):
        if asked != wanted:
            raise UserMistake(
                f"{folder} asked {asked} pixels an image in round {round}, not {wanted} as with budget = "
                f"{cell.settings['budget']}: give another budget or --out, or move it away."
            )


def _check_same_files(folder: Path, plugins: Sequence[Path]) -> None:
    """UserMistake where a folder's run was begun when one of the plugin files held other code."""
    if plugins and (folder / SETTINGS).exists():
        changed = changed_file(RunFolder(folder).settings().get("record", {}), plugins)
        if changed is not None:
            raise UserMistake(f"{folder} was made with another {changed}: give another --out, or move it away.")


def carry_out(job: Job, progress: Progress) -> None:
    """Bring a job's run to its end in this process, from whatever is there of it.

    progress: who is told how it goes; `alseg.progress.Quiet()` tells nobody. Raises what a run raises, AlsegError with
    a sentence where somebody can do something, Waiting where answers are not in yet;
    `alseg.compare.worker.error_of` turns all of it into a sentence.
    """
    try:
        _carry_out(job, progress)
    except Waiting as wait:  # what a run says of how it goes on is not how a comparison does
        raise Waiting(f"{WAITS}{wait.__cause__ or wait}") from None


def _carry_out(job: Job, progress: Progress) -> None:
    from alseg import api

    registry = load_plugins([Path(file) for file in job.plugins], job.third_party)
    folder = Path(job.folder)
    if job.first is not None and not (folder / SETTINGS).exists():
        fork(Path(job.first), folder, job.settings, registry)
    if job.ask_only:
        _ask_only(job, folder, registry, progress)
        return
    if (folder / SETTINGS).exists():
        _extend(RunFolder(folder), job.settings, registry)
        api.resume(folder, registry=registry, progress=progress)
    else:
        api.run(flatten(dict(job.settings)), out=folder, registry=registry, progress=progress)


def _ask_only(job: Job, folder: Path, registry: Registry, progress: Progress) -> None:
    """Have the first round trained where it is not yet, and ask once more."""
    from alseg import api
    from alseg.compare.asking import ask_once

    if not has_rounds(folder, 1):
        _extend(RunFolder(folder), first_settings(job.settings), registry)
        api.resume(folder, registry=registry, progress=progress)
    _extend(RunFolder(folder), job.settings, registry)
    ask_once(folder, registry, progress)


def _extend(run: RunFolder, wanted: Mapping[str, Any], registry: Registry) -> None:
    """Give a run the number of rounds, the budget, the models to keep and the trackers that are wanted now."""
    with run.lock():
        stored = run.settings()
        free = (*EXTENDED, "keep_models", "trackers", *stored.get("trackers", ()))
        if any(stored.get(name) != wanted.get(name) for name in free):
            record = stored.get("record", {})
            run.write_settings(with_origins(registry.recalling(record), {**wanted, "record": record}))


def log_of(logs: Path, job: Job) -> Path:
    """The file among the logs that what a job prints goes to."""
    return logs / f"{job.name.replace(', ', ',').replace(' ', '-')}.log"


def fork(first: Path, folder: Path, settings: Mapping[str, Any], registry: Registry | None = None) -> None:
    """A new run at `folder` whose first round is that of the run `first`, and whose settings are its own."""
    record = RunFolder(first).settings().get("record", {}) | {"run": new_name()}
    with appearing(folder) as fresh:
        for path in sorted(first.rglob("*")):
            if path.is_dir() or path.name.startswith(".") or path.name == SETTINGS:
                continue
            place = fresh / path.relative_to(first)
            place.parent.mkdir(parents=True, exist_ok=True)
            _linked_or_copied(path, place)
        write_toml(fresh / SETTINGS, with_origins(registry or load_plugins(), {**settings, "record": record}))


def _linked_or_copied(path: Path, place: Path) -> None:
    """A model is replaced whole and never written into, so that a link does; the rest is copied."""
    if path.suffix == ".safetensors":
        try:
            os.link(path, place)
            return
        except OSError:
            pass  # another file system
    write_whole(place, path.read_bytes())
