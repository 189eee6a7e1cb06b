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
from alseg.store import RunFolder, write_whole


def ask_once(folder: Path, registry: Registry, progress: Progress) -> None:
    """Ask and answer the second round of a run whose first is complete, and write its statistics to asked.json."""
    run = RunFolder(folder)
    experiment = Experiment(registry, resolve_stored(registry, run, run.settings()), progress)
    experiment.check_same_data(run)
    with run.lock():
        experiment.started(run)
        labels = run.labels().before(1)
        questions = run.questions(1)
        if questions is None:
            questions = run.write_questions(1, experiment.acquire(1, labels))
        work = answered(experiment, run, 1, questions)
        asked = asked_statistics(1, work.placed(), labels.plus(work.answered()), len(experiment.images.pool))
        write_whole(folder / ASKED, (json.dumps({"round": 1, **asked}) + "\n").encode())
