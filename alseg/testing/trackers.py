"""What a tracker must do."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alseg.errors import AlsegError
from alseg.plugins import Registry, load_plugins
from alseg.store import RunFolder
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Report, require
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.testing.tiny_runs import tiny_run

LIFE_CYCLE = ("run_started", "round_finished", "run_finished")
INTERRUPTED = ("run_started", "round_finished", "run_stopped")


@dataclass
class OfTracker:
    """A tracker, and a finished run of two rounds that it is told of as if it were going on."""

    subject: Subject
    place: Path

    @cached_property
    def made(self) -> Any:
        """The tracker that hears of the run."""
        return built(self.subject)

    @cached_property
    def run(self) -> RunFolder:
        """The run."""
        return RunFolder(tiny_run(self.place / "run", report=True))

    @cached_property
    def digests(self) -> dict[str, str]:
        """Those of the run's files before a tracker hears of it."""
        return _digests(self.run.path)

    def tell(self, hooks: tuple[str, ...] = LIFE_CYCLE, tracker: Any = None) -> list[str]:
        """Call the hooks as a run does; what they raised, in sentences."""
        registry = load_plugins((), third_party=False, entry_points=())
        assert self.digests  # taken before the first that hears of it
        with registry.joined_by({"tracker": self.made if tracker is None else tracker}):
            return [said for hook, each in self.calls(hooks) for said in registry.notify(hook, **each)]

    def calls(self, hooks: tuple[str, ...] = LIFE_CYCLE) -> list[tuple[str, dict[str, Any]]]:
        """The hooks with their arguments, each as often as a run calls it."""
        records = self.run.rounds()
        arguments: dict[str, list[dict[str, Any]]] = {
            "run_started": [{"settings": self.run.settings()}],
            "round_finished": [{"record": record} for record in records],
            "run_finished": [{"records": records}],
            "run_stopped": [{"reason": "interrupted", "message": "The run was interrupted."}],
        }
        return [(hook, {"folder": str(self.run.path), **each}) for hook in hooks for each in arguments[hook]]


CONTRACT: Contract[OfTracker] = Contract("tracker")


@explains_wrong_calls
def check_tracker(
    tracker: What,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    registry: Registry | None = None,
    around: What | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a tracker by the factory that is registered, or by its name; raises ContractError."""
    subject = subject_of("tracker", tracker, options, name=name, registry=registry, around=around)
    with tempfile.TemporaryDirectory(prefix="alseg-check-") as place:
        return CONTRACT.judge(OfTracker(subject, Path(place)), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfTracker) -> None:
    """The factory gives an object whose methods, marked with @hookimpl, are life-cycle hooks."""
    try:
        with load_plugins((), third_party=False, entry_points=()).joined_by({"tracker": of.made}):
            pass
    except (AlsegError, ValueError) as error:
        hooks = ", ".join((*LIFE_CYCLE, "run_stopped"))
        mend = f"a tracker's hooks are {hooks}"
        if "implements no life-cycle hook" in str(error):
            mend = f"mark the methods among {hooks} with @hookimpl"
        raise Broken(str(error).rstrip("."), mend) from error


@CONTRACT.check("whole-run")
def _whole_run(of: OfTracker) -> None:
    """It hears of a run of two rounds from its beginning to its end, and raises nothing."""
    said = of.tell()
    require(not said, " ".join(said), "a run goes on, but its user reads this after each round")


@CONTRACT.check("resumed")
def _resumed(of: OfTracker) -> None:
    """It hears that a run is interrupted, and another one like it of that run again, with rounds told before."""
    said = [*of.tell(INTERRUPTED), *of.tell(tracker=built(of.subject))]
    mend = "look at what is there of a run when it begins; it may be going on, and run_stopped may come before its end"
    require(not said, " ".join(said), mend)


@CONTRACT.check("inputs")
def _inputs(of: OfTracker) -> None:
    """The settings and records that it is told stay as they are."""
    registry = load_plugins((), third_party=False, entry_points=())
    with registry.joined_by({"tracker": built(of.subject)}):
        for hook, given in of.calls():
            before = deepcopy(given)
            with contextlib.suppress(Exception):  # of which whole-run speaks
                getattr(registry.manager.hook, hook)(**given)
            require(given == before, f"its {hook} changed what it was given", "change a copy of it")


@CONTRACT.check("leaves-run")
def _leaves_run(of: OfTracker) -> None:
    """What the run's folder holds stays as it is; files of its own may be added."""
    of.tell(tracker=built(of.subject))
    after = _digests(of.run.path)
    changed = [name for name, digest in of.digests.items() if after.get(name, digest) != digest]
    require(not changed, f"it changed {', '.join(changed)}", "write to files of its own")
    require(after.keys() >= of.digests.keys(), "it took files of the run away", "leave them")


@CONTRACT.check("without-pictures")
def _without_pictures(of: OfTracker) -> None:
    """It copes with a run that keeps no pictures and no figures (report = false)."""
    # the last of the checks, for it changes the run
    for name in ("samples", "figures", "report.html"):
        for path in [of.run.path / name, *of.run.path.glob(f"rounds/*/{name}")]:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    said = of.tell(tracker=built(of.subject))
    require(not said, " ".join(said), "look whether a file is there before it is read")


def _digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
