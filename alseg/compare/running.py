"""`alseg compare` as a Python call: the grid's jobs, their executor, and the page on what came of them."""

from __future__ import annotations

import contextlib
import csv
import math
import shlex
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alseg.calling import called
from alseg.compare.comparison import spaced, unknown_baseline
from alseg.compare.jobs import has_rounds, is_done, plan, untold
from alseg.compare.live import Overview
from alseg.compare.page import Published, write_comparison
from alseg.compare.published import published_figures
from alseg.compare.request import Request
from alseg.compare.study import BASELINE, Cell, cells
from alseg.compare.tables import WORDS
from alseg.config import flatten, recipe
from alseg.errors import AlsegError, Interrupted, UserMistake, Waiting
from alseg.hints import command
from alseg.paths import expanded
from alseg.plugins import Registry, load_plugins
from alseg.several import names_in
from alseg.store import SETTINGS, RunFolder, write_toml

STUDY = "comparison.toml"
MOST_NAMED = 6  # runs that wait


@dataclass(frozen=True)
class Compared:
    """The page, the rows of summary.csv, the runs that failed with what they said, and what is to be known of it.

    rows: by column, numbers as numbers, None where nothing is known. waiting: the runs that wait for answers, with what
    they said.
    """

    page: Path
    rows: list[dict[str, Any]]
    failed: Mapping[str, str]
    note: str = ""
    waiting: Mapping[str, str] = field(default_factory=dict)


def compare_grid(request: Request, out: Path | str, *, registry: Registry | None = None, live: Any = None) -> Compared:
    """Complete the runs of a grid under `out`, and write there what they say.

    live: a rich Live view, or None for plain lines on stderr. Raises UserMistake for settings that no run can
    have, Interrupted on Ctrl-C, Waiting where no run has a round yet and answers are waited for.
    """
    registry, out = registry or load_plugins(), expanded(out)
    wanted = cells(registry, request.grid, request.toml, request.flags)
    published = published_figures(request.published)
    if request.baseline and request.insists:
        check_baseline(wanted, str(recipe(registry, BASELINE).get("acquirer")), request.baseline)
    piece = registry.find("executor", request.executor)
    execute = piece.build(piece.resolve(request.executor_options))
    with _held(out):
        _sweep(out)
        broken = _unreadable(wanted, out)
        sound = [cell for cell in wanted if cell.name not in broken]
        plugins: Any = {"plugins": registry.files, "third_party": registry.third_party}
        jobs = plan(sound, out, ask_only=request.ask_only, **plugins)
        _write_study(out, request, wanted)
        overview = Overview(jobs, out / "logs", live)
        try:
            if jobs:
                _executed(piece.described(), lambda: execute(jobs, out / "logs", overview))
                overview.refuse_forgotten(piece.described())
        except KeyboardInterrupt as stop:
            raise Interrupted(
                f"Interrupted with {overview.done} of {len(jobs)} jobs done; the same command goes on. "
                f"{command(registry.files, 'compare', out)} shows what is there."
            ) from stop
        failed = {**broken, **overview.errors}
        if overview.waiting and not failed and not any(has_rounds(out / "runs" / cell.name, 1) for cell in wanted):
            raise Waiting(said_of_waiting(overview.waiting))
        page, note = _written(registry, request, wanted, out, failed, published)
        note = f"{note} {_left_alone(untold(sound, jobs, out), request, registry)}".strip()
    return Compared(page, rows_of(out), failed, note, overview.waiting)


def check_baseline(grid: Sequence[Cell], random: str, name: str) -> None:
    """UserMistake for a baseline that is none of a grid's strategies, before anything is run.

    random: chance's acquirer. Which settings tell a strategy apart, and are in its name, is known when the runs are
    there.
    """
    known = []
    for flat, given in ((flatten(cell.settings), cell.strategy) for cell in grid):
        if flat.get("labels") != "all":
            pieces = random if flat["acquirer"] == random else f"{flat['acquirer']}, {flat['selector']}"
            known.append(given or pieces)
    name = spaced(name)
    ends = tuple(f"{one}{more}" for one in map(spaced, known) for more in (", ", " / ", " ("))
    if name not in map(spaced, known) and not name.startswith(ends):
        raise unknown_baseline(name, list(dict.fromkeys(known)))


def _left_alone(runs: Sequence[Path], request: Request, registry: Registry) -> str:
    """What is said where complete runs do not hear of other trackers; empty where there are none."""
    if not runs:
        return ""
    given = {**request.toml, **request.flags}
    names = names_in("trackers", given.get("trackers"))
    heads = [name.replace("-", "_") for name in names]
    options = [f"{key}={value}" for key, value in given.items() if key.partition(".")[0] in heads]
    words = ("--trackers", ",".join(names), *(word for each in options for word in ("-o", each)))
    again = command(registry.files, "resume", runs[0], *words)
    count = f"{len(runs)} runs were" if len(runs) > 1 else "One run was"
    return f"{count} complete and left alone; their new trackers hear of the first by {again}."


def said_of_waiting(waiting: Mapping[str, str]) -> str:
    """Which runs wait for answers, and how to go on."""
    names, more = list(waiting)[:MOST_NAMED], len(waiting) - MOST_NAMED
    listed = "; ".join(names) + (f"; and {more} more" if more > 0 else "")
    count = f"{len(waiting)} runs wait" if len(waiting) > 1 else "A run waits"
    return f"{count} for answers: {listed}. The same command goes on when they are in."


def compare_runs(
    runs: Sequence[Path], out: Path | None = None, *, baseline: str | None = None, registry: Registry | None = None
) -> Compared:
    """Compare runs that are there; a folder of a comparison stands for its runs.

    out: by default the comparison's own folder where one alone is given, else `comparison`.
    """
    registry, runs = registry or load_plugins(), [expanded(run) for run in runs]
    found = [run for given in runs for run in _runs_in(given)]
    names = {name: strategy for given in runs for name, strategy in _names_in(given).items()}
    alone = runs[0] if len(runs) == 1 and (runs[0] / "runs").is_dir() else None
    study = _study_of(alone) if alone is not None else {}
    place = expanded(out or alone or "comparison")
    _make(place)
    more: Any = {
        "title": str(study.get("title", "")),
        "names": names,
        "published": published_figures(study.get("published", ())),
    }
    if baseline is not None:  # somebody's own word: refused where it names nothing
        page = write_comparison(found, place, **more, random=recipe(registry, BASELINE), baseline=baseline)
        return Compared(page, rows_of(place), {})
    page, note = _page(registry, found, place, str(study.get("baseline", "")), "", **more)
    return Compared(page, rows_of(place), {}, note)


def _executed(name: str, call: Callable[[], None]) -> None:
    """Let an executor do its work; an error of its own code names it and says how to go on."""
    own: list[AlsegError] = []

    def spoken() -> None:
        try:
            call()
        except AlsegError as error:  # its own words, for whoever can mend it
            own.append(error)
            raise

    try:
        called(name, spoken)
    except AlsegError as error:
        if own:
            raise
        raise type(error)(f"{error} The same command goes on.") from error.__cause__


def _written(
    registry: Registry,
    request: Request,
    wanted: Sequence[Cell],
    out: Path,
    failed: Mapping[str, str],
    published: Sequence[Published],
) -> tuple[Path, str]:
    """The page on all runs of the grid that have begun, and what is to be said of it."""
    folders = {cell: out / "runs" / cell.name for cell in wanted if cell.name not in failed or _readable(out, cell)}
    there = [folder for folder in folders.values() if (folder / SETTINGS).exists()]
    if not there:
        name, error = next(iter(failed.items()))
        raise AlsegError(f"No run could be begun: {name}: {error}")
    complete = sum(is_done(folder, cell, request.ask_only) for cell, folder in folders.items())
    note = "" if complete == len(wanted) else f"{complete} of {len(wanted)} runs are complete."
    names = {str(folder.resolve()): cell.strategy for cell, folder in folders.items() if cell.strategy}
    more: Any = {"title": request.title, "names": names, "published": published}
    return _page(registry, there, out, request.baseline or "", note, **more)


def _page(
    registry: Registry, runs: Sequence[Path], out: Path, baseline: str, note: str, **more: Any
) -> tuple[Path, str]:
    """The page and its note; a baseline that names nothing, or nothing yet, is said there and left out."""
    more["random"] = recipe(registry, BASELINE)
    if baseline:
        try:
            return write_comparison(runs, out, **more, baseline=baseline, note=note), note
        except UserMistake as error:
            note = f"{note} {error}".strip()
    return write_comparison(runs, out, **more, note=note), note


def _readable(out: Path, cell: Cell) -> bool:
    """Whether a cell's run, if it is there, can be read."""
    folder = out / "runs" / cell.name
    try:
        if (folder / SETTINGS).exists():
            RunFolder(folder).settings()
            RunFolder(folder).rounds()
    except UserMistake:
        raise
    except AlsegError:
        return False
    return True


def _unreadable(wanted: Sequence[Cell], out: Path) -> dict[str, str]:
    """The runs whose files are damaged, by name, each with what to do."""
    return {
        cell.name: f"its files are damaged: move {out / 'runs' / cell.name} away, and the same command makes it anew"
        for cell in wanted
        if not _readable(out, cell)
    }


def _sweep(out: Path) -> None:
    """Remove what a process that was killed left half made."""
    for place in ("runs", "first-rounds"):
        for path in (out / place).glob(".*"):
            shutil.rmtree(path, ignore_errors=True)


def _make(out: Path) -> None:
    """The folder of a comparison."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistake(f"Cannot create the comparison {out}: {error.strerror}; give another --out.") from error
    if (out / SETTINGS).exists():
        raise UserMistake(f"{out} is a run: give another --out, or compare it with others.")


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    """One process at a time completes a comparison."""
    _make(out)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UserMistake(f"Another process works on the comparison {out}: wait for it or end it.") from error
    try:
        yield
    finally:
        lock.release()


def _write_study(out: Path, request: Request, wanted: Sequence[Cell]) -> None:
    """What the comparison consists of, for whoever looks at its folder later."""
    table = {
        "title": request.title,
        "baseline": request.baseline or "",
        "seeds": list(request.grid.seeds),
        "command": shlex.join(["alseg", *sys.argv[1:]]),
        "published": [dict(entry) for entry in request.published],
        "runs": {cell.name: {"strategy": cell.strategy} for cell in wanted},
    }
    write_toml(out / STUDY, table)


def _runs_in(path: Path) -> list[Path]:
    """A run, or the runs of a comparison's folder."""
    if (path / SETTINGS).exists():
        return [path]
    inner = path / "runs" if (path / "runs").is_dir() else path
    found = sorted(run.parent for run in inner.glob(f"*/{SETTINGS}") if not run.parent.name.startswith("."))
    if not found:
        raise UserMistake(f"{path} is no run and holds none.")
    return found


def _study_of(path: Path) -> dict[str, Any]:
    """What a comparison's folder says of itself; empty where it is none."""
    try:
        return tomllib.loads((path / STUDY).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


def _names_in(path: Path) -> dict[str, str]:
    """The strategies' names that a comparison's folder gives to its runs."""
    table = _study_of(path).get("runs", {})
    named = {name: str(entry.get("strategy", "")) for name, entry in table.items() if isinstance(entry, Mapping)}
    return {str((path / "runs" / name).resolve()): strategy for name, strategy in named.items() if strategy}


def rows_of(out: Path) -> list[dict[str, Any]]:
    """The rows of summary.csv, numbers as numbers, None for an empty cell."""
    with open(out / "summary.csv", newline="", encoding="utf-8") as file:
        return [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(column: str, text: str) -> str | int | float | None:
    if not text or column in WORDS:  # a name may look like a number
        return text or None
    number = float(text)
    if not math.isfinite(number):  # JSON has no word for it
        return None
    return int(text) if text.lstrip("-").isdecimal() else number
