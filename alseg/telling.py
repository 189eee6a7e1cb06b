"""What a run tells plugins and trackers of its life, by the life-cycle hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from alseg.config import with_origins
from alseg.errors import Waiting, disk_sentence
from alseg.hints import command
from alseg.plugins import Registry
from alseg.several import names_in
from alseg.store import RunFolder
from alseg.trackers import check_trackers, stored_trackers, title_of, trackers_in
from alseg.writing import write_whole

# In the run's folder from run_started to run_finished: a run that a kill kept from its last word is known by it. It
# is empty, or has a line for each tracker that alone is still to hear the end.
OWED = ".unfinished"


class Life:
    """A run's life as its plugins and trackers hear of it; a hook that fails is said and ends no run.

    only: the trackers, as `known` knows them, that are told and nobody else; None: all.
    """

    def __init__(
        self, registry: Registry, folder: RunFolder, say: Callable[[str], None], only: frozenset[str] | None = None
    ) -> None:
        self._registry, self._folder, self._say, self._only = registry, folder, say, only
        self._goes_on = False

    def recorded(self, record: Mapping[str, Any]) -> None:
        """A round is recorded."""
        self._tell("round_finished", record=record)

    def finished(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The run is complete; a tracker that fails to hear that is owed it."""
        failed = self._tell("run_finished", records=records)
        self._goes_on = False
        owed = frozenset(known(name) for name in failed if name.startswith("tracker "))
        if owed:
            again = command(self._registry.files, "resume", self._folder.path)
            self._say(f"{again} tells the {' and the '.join(sorted(owed))} of the end again.")
        leave_owed(self._folder, owed)

    def stopped(self, reason: str, message: str) -> None:
        """The run ends before it is complete; said once, and only where its beginning was."""
        if self._goes_on:
            self._goes_on = False
            self._tell("run_stopped", reason=reason, message=message)

    @contextlib.contextmanager
    def lasting(self) -> Iterator[None]:
        """The run begins or goes on, and lasts; what ends it early is told before it goes further."""
        try:
            self._started()
            yield
        except BaseException as error:
            self.stopped(*_said_of(error))
            raise

    def _started(self) -> None:
        leave_owed(self._folder, self._only)
        self._goes_on = True
        self._tell("run_started", settings=self._folder.settings())

    def _tell(self, hook: str, **arguments: Any) -> list[str]:
        """The names of those that failed."""
        failures = self._registry.failures(hook, only=self._is_told, folder=str(self._folder.path), **arguments)
        for failure in failures.values():
            self._say(f"alseg: {failure}")
        return list(failures)

    def _is_told(self, name: str) -> bool:
        return self._only is None or known(name) in self._only


def known(title: str) -> str:
    """What a tracker is known by, wherever its plugin lies: "tracker 'x'" of "tracker 'x' of /some/file.py"."""
    return title.partition(" of ")[0]


def owed_end(folder: RunFolder) -> frozenset[str] | None:
    """The trackers, as they are `known`, that a run's end was not told; None: nobody was told."""
    mark = folder.path / OWED
    return frozenset(mark.read_text("utf-8").splitlines()) or None if mark.exists() else frozenset()


def leave_owed(folder: RunFolder, owed: frozenset[str] | None) -> None:
    """Keep in the folder to whom the run's end is still to be told; None: to all."""
    if owed is not None and not owed:
        (folder.path / OWED).unlink(missing_ok=True)
    else:
        write_whole(folder.path / OWED, "".join(f"{name}\n" for name in sorted(owed or ())).encode())


def tell_late(
    registry: Registry,
    folder: RunFolder,
    before: Mapping[str, Any],
    settings: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Tell a complete run, whose lock is held, to those that have not heard its end, and to trackers that are others.

    before: its stored settings, in whose place `settings` are stored.
    """
    owed = owed_end(folder)
    if settings == before and owed is not None and not owed:
        return
    check_trackers(registry, folder, settings)
    choices = {known(title_of(choice.name)): choice for choice in trackers_in(registry, settings)}
    if owed is not None:
        others = {title for title, choice in choices.items() if _is_other(choice.name, before, settings)}
        choices = {title: choice for title, choice in choices.items() if title in owed | others}
        owed = frozenset(choices)
    with registry.joined_by(stored_trackers(registry, folder, list(choices.values()))):
        leave_owed(folder, owed)
        if settings != before:
            folder.write_settings(with_origins(registry, settings))
        if owed is None or owed:
            life = Life(registry, folder, say, owed)
            with life.lasting():
                life.finished(folder.rounds())


def _is_other(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run had no such tracker before, or one with other options."""
    return name not in names_in("trackers", before.get("trackers")) or before.get(name) != now.get(name)


def _said_of(error: BaseException) -> tuple[str, str]:
    """A reason in a word, and in a sentence."""
    if isinstance(error, Waiting):
        return "waiting", str(error)
    if not isinstance(error, Exception):
        return "interrupted", "The run was interrupted."
    if isinstance(error, OSError):
        return "failed", disk_sentence(error)
    return "failed", str(error) or type(error).__name__
