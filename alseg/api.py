"""The Python calls behind the command line."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import alseg
from alseg.answering import Attendance
from alseg.attending import NOBODY_WAITS, dismiss
from alseg.config import Resolved, RunConfig, flatten, named_by, resolve, stored_config, with_origins, without_record
from alseg.data import absent_classes
from alseg.engine.device import own_modes
from alseg.engine.team import Team, join
from alseg.errors import Interrupted, Lasting, UserMistake, Waiting
from alseg.experiment import Experiment
from alseg.hints import command, plugin_hint
from alseg.interchange.start import check_start, start_of
from alseg.loop import run_rounds
from alseg.moved import check_settings, moved, precision_of
from alseg.options import convert
from alseg.paths import expanded
from alseg.plugin_files import recorded_files
from alseg.plugins import Registry, load_plugins
from alseg.progress import Progress, Quiet
from alseg.report.page import is_current, write_report
from alseg.schedule import Schedule
from alseg.several import LISTS
from alseg.store import SETTINGS, RunFolder, name_of, new_name, refuse_occupied
from alseg.telling import tell_late
from alseg.trackers import check_trackers, stored_trackers, trackers_of, with_trackers

CURVE = Path("figures") / "learning-curve.png"
PAGE = "report.html"


@dataclass(frozen=True)
class RunResult:
    """A run's folder, its rounds' records, its learning curve where it was scored, and its report."""

    folder: Path
    rounds: list[dict[str, Any]]
    curve: Path | None
    report: Path | None


@own_modes()
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
    they go over `toml`, that over the recipe; both may have tables too, as a TOML file has them. out: the run's
    folder, by default one under runs/. attendance: how a person who answers is waited for.
    Raises UserMistake for what the caller can put right, Waiting where answers are not in yet; KeyboardInterrupt says
    how to go on. Threads take turns, as torch's random numbers are a process's own: processes run side by side.
    """
    registry, progress, team = registry or load_plugins(), progress or Quiet(), join()
    path = None if out is None else expanded(out)
    layers = flatten(toml or {}), flatten(settings or {})
    if not team.leads:
        place, name = team.told()
        resolved = resolve(registry, *layers)
        Experiment(registry, resolved, Quiet(), team, run=name).follow()
        return _result(RunFolder(Path(place)), [])
    if path is not None:
        refuse_occupied(path)
    resolved = resolve(registry, *layers)
    name = new_name()
    experiment = Experiment(registry, resolved, progress, team, attendance, name)
    start = start_of(resolved.config.start_from, resolved.dataset, experiment.images.pool, progress.say)
    trackers = trackers_of(registry, resolved.config.trackers)  # one that cannot join stops a run before its folder
    experiment.prepare()
    record = {"run": name, "alseg": alseg.__version__, **versions(), **experiment.facts()}
    if len(present := experiment.images.pool.present) == 1:  # such as of masks of 0 and 255, which is void
        progress.say(absent_classes(experiment.classes, present))
    for rival in registry.left_aside(named_by(resolved.config, layers[0] | layers[1])):
        of, written = rival.plugin.distribution, registry.written(rival)
        progress.say(f"The {rival.kind} {rival.name!r} is alseg's own; that of {of} is had as {written}.")
    record |= recorded_files(registry.files)
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
    with folder.lock():
        return _carried_on(registry, experiment, folder, registry.joined_by(trackers))


@own_modes()
def resume(
    folder: Path | str,
    *,
    rounds: int | None = None,
    budget: int | None = None,
    data: Path | str | None = None,
    weights: Path | str | None = None,
    trackers: Sequence[str] | str | None = None,
    tracker_options: Mapping[str, Any] | None = None,
    attendance: Attendance | None = None,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Carry an interrupted run to its end; a finished one is left as it is.

    rounds, budget: new values of these settings, with which a finished run goes on. data, weights: where the same
    images and weights lie now. trackers: what hears of the rest instead, names or () for none; those that stay keep
    their options. tracker_options: new ones, such as {"mlflow.uri": "sqlite:///mlflow.db"}. A finished run
    is told as a whole to trackers that are new or have other options, to those that failed when they were told its end,
    and to all where it was killed before that.
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
    with opened.lock():  # before anything is read: what another process writes meanwhile would be lost
        longer = {key: convert(key, n, int) for key, n in {"rounds": rounds, "budget": budget}.items() if n is not None}
        others, stored = (trackers, tracker_options), moved(opened, opened.settings(), data=data, weights=weights)
        return _gone_on(registry, opened, stored, longer, others, attendance=attendance, progress=progress, team=team)


def _gone_on(
    registry: Registry,
    folder: RunFolder,
    before: dict[str, Any],
    longer: dict[str, Any],
    others: tuple[Sequence[str] | str | None, Mapping[str, Any] | None],
    *,
    attendance: Attendance | None,
    progress: Progress,
    team: Team,
) -> RunResult:
    """Do what is left of a run, whose lock is held.

    before: its settings. longer: other rounds or budget, by name. others: trackers and their options.
    """
    records = folder.rounds()
    folder.check_labels(len(records))
    registry = registry.recalling(before.get("record"))
    settings = with_trackers(registry, before | longer, *others)
    if before | longer != before:
        check_trackers(registry, folder, settings)
        _check_extension(registry, folder, len(records), settings, longer.get("rounds"), longer.get("budget"))
    elif records and _is_finished(registry, folder, len(records)):
        if before != folder.settings():  # of other places
            Experiment(registry, resolve_stored(registry, folder, before), progress, team).check_same_data(folder)
            folder.write_settings(before)
        if before.get("report") and not is_current(folder.path):
            write_report([folder.path], folder.path)  # the run was killed before its figures were drawn
        team.tell("nothing to do")
        with _resumable(registry, folder):
            tell_late(registry, folder, before, settings, progress.say)
        return _result(folder, records)
    with _resumable(registry, folder):
        check_trackers(registry, folder, settings)
        resolved = resolve_stored(registry, folder, settings)
        check_settings(folder, resolved.config)
        check_start(folder.path, before.get("record"))
        experiment = Experiment(registry, resolved, progress, team, attendance, name_of(before.get("record")))
        joined = registry.joined_by(stored_trackers(registry, folder, resolved.config.trackers))
        experiment.check_same_data(folder)
    team.tell("go on", settings)
    changed = None if settings == folder.settings() else with_origins(registry, settings)
    return _carried_on(registry, experiment, folder, joined, changed)


def _is_finished(registry: Registry, folder: RunFolder, rounds: int) -> bool:
    """Whether nothing is left to do; the data need not be there to say so."""
    if folder.questions(rounds) == []:  # a round that found nothing left to ask
        return True
    try:
        return rounds >= Schedule(stored_config(registry, folder.settings(), ()), folder.asked()).total_rounds()
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
    schedule = Schedule(config, folder.asked())
    total, spent = schedule.total_rounds(), sum(schedule.asked)
    if rounds is not None and total < rounds:
        raise UserMistake(f"The budget of {config.budget} pixels an image ends after {total} rounds: raise it too.")
    if total < finished:
        raise UserMistake(f"The run {path} has finished {finished} rounds already: give more.")
    if budget is not None and budget < spent:
        raise UserMistake(f"The run {path} has asked {spent} pixels an image already: give more.")
    if total == finished and config.rounds is not None and budget is not None:
        raise UserMistake(
            f"The run {path} ends after its {config.rounds} rounds whatever the budget: give --rounds too."
        )


def resolve_stored(registry: Registry, folder: RunFolder, settings: dict[str, Any]) -> Resolved:
    """The configuration of a stored run, which holds every setting, with the precision that the run goes on in."""
    path, stored, record = folder.path / SETTINGS, without_record(settings), settings.get("record", {})
    try:
        if not isinstance(record, dict) or "dataset" not in stored:
            raise UserMistake("it lacks the setting dataset.")
        lists = dict.fromkeys(LISTS, "none")  # run.toml leaves an empty one out, and the recipe's must not come back
        resolved = resolve(registry, lists | flatten(stored), {"precision": precision_of(settings)})
    except UserMistake as error:
        raise UserMistake(f"{path} cannot be taken up: {error}{plugin_hint(record, folder.path)}") from error
    missing = flatten(resolved.config.nested()).keys() - flatten(stored).keys()
    if missing:
        raise UserMistake(f"{path} lacks the setting {min(missing)}: it is damaged, or of another version of alseg.")
    return resolved


@contextlib.contextmanager
def _resumable(registry: Registry, folder: RunFolder, by_person: bool = False) -> Iterator[None]:
    """What stops a run says how it goes on."""
    goes_on = command(registry.files, "resume", folder.path)
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(f"Interrupted; {_from_the_last_phase(registry, folder)}") from stop
    except Waiting as wait:
        label = f"{command(registry.files, 'annotate', folder.path)} lets them be given; "
        raise Waiting(f"{wait} {label if by_person else ''}{goes_on} goes on when they are in.") from wait


@contextlib.contextmanager
def _going_on(registry: Registry, folder: RunFolder) -> Iterator[None]:
    """What ends a run that has begun carries a note on how it goes on, unless it would end it again."""
    try:
        yield
    except (Waiting, Lasting):
        raise
    except Exception as error:
        error.add_note(_from_the_last_phase(registry, folder))
        raise


def _from_the_last_phase(registry: Registry, folder: RunFolder) -> str:
    return f"{command(registry.files, 'resume', folder.path)} goes on from the last phase."


def _carried_on(
    registry: Registry,
    experiment: Experiment,
    folder: RunFolder,
    trackers: AbstractContextManager[None],
    settings: Mapping[str, Any] | None = None,
) -> RunResult:
    """Do what is left to do of a run, whose lock is held; `settings` take the place of the stored ones before."""
    with _going_on(registry, folder), trackers, _resumable(registry, folder, experiment.by_person):
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
