"""What a strategy would ask after the first round, without training on it."""

from __future__ import annotations

import json
from pathlib import Path

from alseg.api import resolve_stored
from alseg.compare.measures import ASKED
from alseg.experiment import Experiment
from alseg.loop import answered
from alseg.plugins import Registry
from alseg.progress import Progress
from alseg.report.statistics import asked_statistics
from alseg.store import RunFolder, name_of
from alseg.trackers import trackers_of
from alseg.writing import write_whole


def ask_once(folder: Path, registry: Registry, progress: Progress) -> None:
    """Ask and answer the second round of a run whose first is complete, and write its statistics to asked.json.

    Its trackers hear of it as of a run that stops after it was asked.
    """
    run = RunFolder(folder)
    settings = run.settings()
    registry = registry.recalling(settings.get("record"))
    resolved = resolve_stored(registry, run, settings)
    experiment = Experiment(registry, resolved, progress, run=name_of(settings.get("record")))
    trackers = trackers_of(registry, resolved.config.trackers)
    experiment.check_same_data(run)
    with run.lock(), registry.joined_by(trackers), experiment.started(run):
        labels = run.labels().before(1)
        questions = run.questions(1)
        if questions is None:
            asked = experiment.acquire(1, labels)
            questions = run.write_questions(1, asked, experiment.acquire_seconds, experiment.pixels_in(1))
        work = answered(experiment, run, 1, questions)
        chosen = [question for question in work.placed() if not question.audit]  # audits only measure
        known = labels.plus(work.answered()).audits(False)
        found = asked_statistics(1, chosen, known, len(experiment.images.pool))
        write_whole(folder / ASKED, (json.dumps({"round": 1, **found}) + "\n").encode())
        experiment.life.stopped("asked", "Round 1 was asked, and --ask-only trains no further.")
