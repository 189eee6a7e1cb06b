"""A run's report while it goes on: its page, and the pictures that it shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from alseg.config import RunConfig
from alseg.engine.acquire import View
from alseg.engine.device import deterministic, out_of_memory
from alseg.engine.images import DecodedImages
from alseg.errors import AlsegError
from alseg.plugins import Registry
from alseg.report import pictures
from alseg.report.page import write_report
from alseg.store import RunFolder
from alseg.values import Classes


class Reporting:
    """Keeps a run's report up to date, where its settings want one; what goes wrong there is said and ends no run."""

    def __init__(self, registry: Registry, config: RunConfig, say: Callable[[str], None]) -> None:
        self._registry, self._config, self._say = registry, config, say
        self._next = 0.0  # by the clock

    def write(self, folder: RunFolder, figures: bool = False) -> None:
        """Write the report; where rounds are short not after each, so that it takes a tenth of the time at most."""
        started = time.perf_counter()
        if not self._config.report or (started < self._next and not figures):
            return
        try:
            write_report([folder.path], folder.path, figures, registry=self._registry)
        except Exception as error:  # the run's results are worth more than a page on them
            self._say(f"There is no new report: {type(error).__name__}: {error}")
        now = time.perf_counter()
        self._next = now + 9 * (now - started)

    def picture(
        self,
        folder: RunFolder,
        round: int,
        images: DecodedImages,
        classes: Classes,
        views: Callable[[Sequence[int]], Iterator[View]],
    ) -> None:
        """Keep what a round's model thinks of a few training images; views: of the images of these numbers."""
        if not self._config.report:
            return
        numbers = pictures.chosen_images(len(images))
        try:
            pictures.write_images(folder, images, classes)
            with deterministic(self._config.deterministic):
                pictures.write_round(folder, round, views(numbers), classes)
        except (AlsegError, MemoryError, RuntimeError) as error:  # pictures are no reason to end a run
            if not isinstance(error, AlsegError) and not out_of_memory(error):
                raise
            self._say(f"Round {round} has no sample pictures: {error}")
