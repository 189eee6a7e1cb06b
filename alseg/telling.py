"""What a run tells plugins and trackers of its life, by the life-cycle hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alseg.errors import Waiting, disk_sentence
from alseg.plugins import Registry
from alseg.store import RunFolder

# In the run's folder from run_started to run_finished: a run that a kill kept from its last word is known by it.
OWED = ".unfinished"


class Life:
    """A run's life as its plugins and trackers hear of it; a hook that fails is said and ends no run."""

    def __init__(self, registry: Registry, folder: RunFolder, say: Callable[[str], None]) -> None:
        self._registry, self._folder, self._say = registry, folder, say
        self._goes_on = False

    @property
    def is_owed_its_end(self) -> bool:
        """Whether run_started was told, by an earlier process perhaps, and run_finished was not."""
        return self._mark.exists()

    def recorded(self, record: Mapping[str, Any]) -> None:
        """A round is recorded."""
        self._tell("round_finished", record=record)

    def finished(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The run is complete."""
        self._tell("run_finished", records=records)
        self._goes_on = False
        self._mark.unlink(missing_ok=True)

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
        self._mark.touch()
        self._goes_on = True
        self._tell("run_started", settings=self._folder.settings())

    @property
    def _mark(self) -> Path:
        return self._folder.path / OWED

    def _tell(self, hook: str, **arguments: Any) -> None:
        for failure in self._registry.notify(hook, folder=str(self._folder.path), **arguments):
            self._say(failure)


def _said_of(error: BaseException) -> tuple[str, str]:
    """A reason in a word, and in a sentence."""
    if isinstance(error, Waiting):
        return "waiting", str(error)
    if not isinstance(error, Exception):
        return "interrupted", "The run was interrupted."
    if isinstance(error, OSError):
        return "failed", disk_sentence(error)
    return "failed", str(error) or type(error).__name__
