"""The rounds of a run: acquire, ask, collect, train, evaluate, record."""

from __future__ import annotations

from typing import Any

from alseg.answering import OpenRound
from alseg.attending import attended, check_answered, check_labelled, waiting
from alseg.experiment import Experiment
from alseg.interchange.labelset import start_labels
from alseg.store import RunFolder
from alseg.values import PixelLabels, Question


def run_rounds(experiment: Experiment, folder: RunFolder) -> list[dict[str, Any]]:
    """Do the rounds that are not recorded yet. A phase whose file is there is not done again."""
    with experiment.started(folder):
        if experiment.config.labels == "all":
            supervise_fully(experiment, folder)
        else:
            ask_and_train(experiment, folder)
        return experiment.finished()


def ask_and_train(experiment: Experiment, folder: RunFolder) -> None:
    """The rounds of a run that asks, until the last or until nothing is left to ask."""
    for round in range(len(folder.rounds()), experiment.schedule.total_rounds()):
        labels = folder.labels().before(round) if round else start_labels(folder)
        starts = round == 0 and len(labels) > 0  # from labels that are there: nothing is asked at random
        questions = folder.questions(round)
        if questions is None:
            questions = [] if starts else experiment.acquire(round, labels)
            seconds, most = experiment.acquire_seconds, experiment.pixels_in(round)
            questions = folder.write_questions(round, questions, seconds, most)
        if not questions and not starts:
            experiment.say(f"Round {round}: no candidate is left to ask; the run ends here.")
            break
        work = answered(experiment, folder, round, questions)
        labels, questions = labels.plus(work.answered()), work.placed()
        check_labelled(work, labels, experiment.oracle)
        model, training = experiment.trained(round) if folder.has_model(round) else experiment.train(round, labels)
        folder.write_labels(labels)
        experiment.picture(round, labels, model)
        evaluation = experiment.evaluate(round, model, labels)
        if experiment.config.keep_models == "last":  # before the record, with which a killed run would be complete
            folder.remove_models(round)
        experiment.record(round, questions, labels, training, evaluation)


def supervise_fully(experiment: Experiment, folder: RunFolder) -> None:
    """One training on every pixel of the masks: the upper line. Nothing is asked and no label is written."""
    if not folder.rounds():
        model, training = experiment.trained(0) if folder.has_model(0) else experiment.train(0, None)
        experiment.record(0, [], PixelLabels(), training, experiment.evaluate(0, model, PixelLabels()))


def answered(experiment: Experiment, folder: RunFolder, round: int, questions: list[Question]) -> OpenRound:
    """Let what has no answer yet be answered; the journal has all of it.

    A round that a model was trained on already is not opened again: an answer that was changed now would not be the one
    it saw.
    """
    with experiment.answering(round, questions) as work:
        if folder.has_model(round) and not work.unanswered() and not work.unplaced():
            return work
        with waiting(work, experiment.by_person):
            attended(work, experiment.selector, experiment.oracle)
        check_answered(work)
    return work
