"""The Python calls behind the command line."""

from __future__ import annotations

import contextlib
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import alseg
from alseg.answering import Attendance
from alseg.attending import NOBODY_WAITS, dismiss
from alseg.config import Resolved, RunConfig, chosen, flatten, resolve, stored_config, with_origins
from alseg.engine.team import join
from alseg.errors import AlsegError, Interrupted, Lasting, UserMistake, Waiting
from alseg.experiment import Experiment
from alseg.interchange.start import check_start, start_of
from alseg.loop import run_rounds
from alseg.plugins import Registry, load_plugins, plugin_hint
from alseg.progress import Progress, Quiet
from alseg.report.page import is_current, write_report
from alseg.several import Choice, names_in
from alseg.store import SETTINGS, RunFolder, name_of, new_name, refuse_occupied
from alseg.telling import Life
from alseg.trackers import trackers_in, trackers_of, with_trackers

CURVE = Path("figures") / "learning-curve.png"
PAGE = "report.html"


@dataclass(frozen=True)
class RunResult:
    """A run's folder, its rounds' records, its learning curve where it was scored, and its report."""

    folder: Path
    rounds: list[dict[str, Any]]
    curve: Path | None
    report: Path | None


def run(
    settings: Mapping[str, Any] | None = None,
    *,
    out: Path | str | None = None,
    toml: Mapping[str, Any] | None = None,
    attendance: Attendance | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Start a run and carry it to its end.

    settings: dotted settings, such as {"dataset": "camvid", "dataset.data": "camvid", "train.epochs": 12};
    they go over `toml`, that over the recipe. out: the run's folder, by default one under runs/. attendance:
    how a person who answers is waited for.
    Raises UserMistake for what the caller can put right, Waiting where answers are not in yet.
    """
    registry, progress, team = registry or load_plugins(), progress or Quiet(), join()
    path = None if out is None else Path(out)
    if not team.leads:
        place, name = team.told()
        resolved = resolve(registry, toml or {}, flatten(settings or {}))
        Experiment(registry, resolved, Quiet(), team, run=name).follow()
        return _result(RunFolder(Path(place)), [])
    if path is not None:
        refuse_occupied(path)
    resolved = resolve(registry, toml or {}, flatten(settings or {}))
    name = new_name()
    experiment = Experiment(registry, resolved, progress, team, attendance, name)
    start = start_of(resolved.config.start_from, experiment.classes, experiment.images.pool, progress.say)
    trackers = trackers_of(registry, resolved.config.trackers)  # one that cannot join stops a run before its folder
    experiment.prepare()
    record = {"run": name, "alseg": alseg.__version__, **versions(), **experiment.facts()}
    for rival in registry.left_aside(chosen(resolved.config)):
        of, written = rival.plugin.distribution, registry.written(rival)
        progress.say(f"The {rival.kind} {rival.name!r} is alseg's own; that of {of} is had as {written}.")
    if registry.files:
        record["plugin_files"] = [str(file) for file in registry.files]
    if start is not None:
        record["start"] = dict(start.facts)
    stored = with_origins(registry, {**resolved.config.nested(), "record": record})
    folder = None
    while folder is None:
        place = path or free_folder(Path("runs"), resolved.config)
        try:
            folder = RunFolder.create(
                place, stored, experiment.fingerprints(), None if start is None else start.content
            )
        except UserMistake:
            if path is not None or not (place / SETTINGS).exists():
                raise  # else another run took the free name at the same moment
    team.tell(str(folder.path), name)
    return _carried_on(experiment, folder, registry.joined_by(trackers))


def resume(
    folder: Path | str,
    *,
    rounds: int | None = None,
    budget: int | None = None,
    trackers: Sequence[str] | str | None = None,
    tracker_options: Mapping[str, Any] | None = None,
    attendance: Attendance | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Carry an interrupted run to its end; a finished one is left as it is.

    rounds, budget: new values of these settings, with which a finished run goes on. trackers: what hears of the rest
    instead, names or () for none; those that stay keep their options. tracker_options: new ones, such as
    {"mlflow.uri": "sqlite:///mlflow.db"}. A finished run whose trackers change, or that was killed before its end was
    told, is told to them as a whole.
    """
    registry, progress, team = registry or load_plugins(), progress or Quiet(), join()
    opened = RunFolder(Path(folder))
    if not team.leads:
        order = team.told()
        if order[0] == "go on":
            record = order[1].get("record")
            registry = registry.recalling(record)
            resolved = resolve_stored(registry, opened, order[1])
            Experiment(registry, resolved, Quiet(), team, run=name_of(record)).follow()
        return _result(opened, [])
    records, before = opened.rounds(), opened.settings()
    registry = registry.recalling(before.get("record"))
    longer = before | {k: v for k, v in (("rounds", rounds), ("budget", budget)) if v is not None}
    settings = with_trackers(registry, longer, trackers, tracker_options)
    changed = settings if settings != before else None
    if longer != before:
        _check_trackers(registry, opened, settings)
        _check_extension(registry, opened, len(records), settings, rounds, budget)
    elif records and _is_finished(registry, opened, len(records)):
        if before.get("report") and not is_current(opened.path):
            write_report([opened.path], opened.path)  # the run was killed before its figures were drawn
        team.tell("nothing to do")
        _told_late(registry, opened, settings, changed, progress)
        return _result(opened, records)
    with _resumable(opened):
        _check_trackers(registry, opened, settings)
        resolved = resolve_stored(registry, opened, settings)
        opened.check_labels(len(records))
        check_start(opened.path, before.get("record"))
        experiment = Experiment(registry, resolved, progress, team, attendance, name_of(before.get("record")))
        joined = registry.joined_by(_stored_trackers(registry, opened, resolved.config.trackers))
        experiment.check_same_data(opened)
    team.tell("go on", settings)
    return _carried_on(experiment, opened, joined, None if changed is None else with_origins(registry, changed))


def _told_late(
    registry: Registry,
    folder: RunFolder,
    settings: Mapping[str, Any],
    changed: Mapping[str, Any] | None,
    progress: Progress,
) -> None:
    """Tell a complete run where its end was not told before, or where its trackers are others now."""
    life = Life(registry, folder, progress.say)
    if changed is None and not life.is_owed_its_end:
        return
    _check_trackers(registry, folder, settings)
    trackers = _stored_trackers(registry, folder, trackers_in(registry, settings))
    with folder.lock(), registry.joined_by(trackers), _resumable(folder):
        if changed is not None:
            folder.write_settings(with_origins(registry, changed))
        with life.lasting():
            life.finished(folder.rounds())


def _check_trackers(registry: Registry, folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """UserMistake where a tracker's plugin is not there, with how to do without."""
    for name in names_in("trackers", settings.get("trackers")):
        try:
            registry.find("tracker", name)
        except UserMistake as error:
            raise UserMistake(f"{error}{plugin_hint(settings.get('record'))} {_untracked(folder)}.") from error


def _untracked(folder: RunFolder) -> str:
    return f"`alseg resume {shlex.quote(str(folder.path))} --trackers none` goes on without trackers"


def _stored_trackers(registry: Registry, folder: RunFolder, choices: Sequence[Choice]) -> dict[str, Any]:
    """The trackers of a run that goes on; where one cannot be had, how to do without."""
    try:
        return trackers_of(registry, choices)
    except AlsegError as error:
        raise type(error)(f"{str(error).rstrip('.')}; {_untracked(folder)}.") from error


def _is_finished(registry: Registry, folder: RunFolder, rounds: int) -> bool:
    """Whether nothing is left to do; the data need not be there to say so."""
    if folder.questions(rounds) == []:  # a round that found nothing left to ask
        return True
    settings = folder.settings()
    settings.pop("record", None)
    try:
        return rounds >= stored_config(registry, settings, ()).total_rounds()
    except UserMistake:
        return False  # what is wrong is said when the run is taken up


def _check_extension(
    registry: Registry,
    folder: RunFolder,
    finished: int,
    settings: dict[str, Any],
    rounds: int | None,
    budget: int | None,
) -> None:
    """UserMistake where another number of rounds or another budget makes no sense."""
    path = folder.path
    if budget is not None and settings.get("pool_pixels_per_round", "none") != "none":
        raise UserMistake(f"The run {path} asks over the whole pool: it takes --rounds, not --budget.")
    if settings.get("labels") == "all":
        raise UserMistake(f"The run {path} is full supervision: it trains once.")
    config = resolve_stored(registry, folder, settings).config
    total = config.total_rounds()
    if rounds is not None and total < rounds:
        raise UserMistake(f"The budget of {config.budget} pixels an image ends after {total} rounds: raise it too.")
    if total < finished:
        raise UserMistake(f"The run {path} has finished {finished} rounds already: give more.")
    if total == finished and config.rounds is not None and budget is not None:
        raise UserMistake(
            f"The run {path} ends after its {config.rounds} rounds whatever the budget: give --rounds too."
        )


def resolve_stored(registry: Registry, folder: RunFolder, settings: dict[str, Any]) -> Resolved:
    """The configuration of a stored run, which holds every setting."""
    path, stored = folder.path / SETTINGS, {**settings}
    record = stored.pop("record", {})
    try:
        if not isinstance(record, dict) or "dataset" not in stored:
            raise UserMistake("it lacks the setting dataset.")
        resolved = resolve(registry, flatten(stored), {})
    except UserMistake as error:
        raise UserMistake(f"{path} cannot be taken up: {error}{plugin_hint(record)}") from error
    missing = flatten(resolved.config.nested()).keys() - flatten(stored).keys()
    if missing:
        raise UserMistake(f"{path} lacks the setting {min(missing)}: it is damaged, or of another version of alseg.")
    return resolved


@contextlib.contextmanager
def _resumable(folder: RunFolder, by_person: bool = False) -> Iterator[None]:
    """What stops a run says how it goes on."""
    command = f"alseg resume {shlex.quote(str(folder.path))}"
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"Interrupted; {_from_the_last_phase(folder)}") from stop
    except Waiting as wait:
        label = f"`alseg annotate {shlex.quote(str(folder.path))}` lets them be given; "
        raise Waiting(f"{wait} {label if by_person else ''}`{command}` goes on when they are in.") from wait


@contextlib.contextmanager
def _going_on(folder: RunFolder) -> Iterator[None]:
    """What ends a run that has begun carries a note on how it goes on, unless it would end it again."""
    try:
        yield
    except (Interrupted, Waiting, Lasting):
        raise
    except Exception as error:
        error.add_note(_from_the_last_phase(folder))
        raise


def _from_the_last_phase(folder: RunFolder) -> str:
    return f"`alseg resume {shlex.quote(str(folder.path))}` goes on from the last phase."


def _carried_on(
    experiment: Experiment,
    folder: RunFolder,
    trackers: AbstractContextManager[None],
    settings: Mapping[str, Any] | None = None,
) -> RunResult:
    """Do what is left to do; `settings` take the place of the stored ones before."""
    with folder.lock(), _going_on(folder), trackers, _resumable(folder, experiment.by_person):
        if settings is not None:
            folder.write_settings(settings)
        try:
            records = run_rounds(experiment, folder)
        except BaseException as error:
            if isinstance(error, Waiting):
                experiment.dismiss()
            dismiss(experiment.selector, experiment.oracle, NOBODY_WAITS)
            raise
        experiment.dismiss()
        last_word = f"The run is complete. Its results are in {folder.path.resolve()}."
        dismiss(experiment.selector, experiment.oracle, last_word, done=True)
        return _result(folder, records)


def _result(folder: RunFolder, records: list[dict[str, Any]]) -> RunResult:
    curve, page = folder.path / CURVE, folder.path / PAGE
    return RunResult(folder.path, records, curve if curve.exists() else None, page if page.exists() else None)


def free_folder(parent: Path, config: RunConfig) -> Path:
    """A folder under `parent`, named after the run's pieces and seed, that does not exist yet."""
    pieces = (config.dataset.name, config.acquirer.name, config.selector.name, str(config.seed))
    name = "-".join(piece.replace(":", "-").replace("/", "-") for piece in pieces)
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for name in ("torch", "torchvision", "timm", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
