"""The rounds of a run: acquire, ask, collect, train, evaluate, record."""

from __future__ import annotations

from typing import Any

from alseg.errors import Waiting
from alseg.experiment import Experiment
from alseg.journal import as_events, fold
from alseg.store import RunFolder
from alseg.values import PixelLabel, PixelLabels, Question


def run_rounds(experiment: Experiment, folder: RunFolder) -> list[dict[str, Any]]:
    """Do the rounds that are not recorded yet. A phase whose file is there is not done again."""
    experiment.started(folder)
    if experiment.config.labels == "all":
        supervise_fully(experiment, folder)
        return experiment.finished()
    for round in range(len(folder.rounds()), experiment.config.total_rounds()):
        labels = folder.labels().before(round)
        questions = folder.questions(round)
        if questions is None:
            questions = folder.write_questions(round, experiment.acquire(round, labels))
        if not questions:
            experiment.say(f"Round {round}: no candidate is left to ask; the run ends here.")
            break
        labels = labels.plus(answered(experiment, folder, round, questions))
        model, training = experiment.trained(round) if folder.has_model(round) else experiment.train(round, labels)
        folder.write_labels(labels)
        experiment.picture(round, labels, model)
        experiment.record(round, questions, labels, training, experiment.evaluate(round, model))
    return experiment.finished()


def supervise_fully(experiment: Experiment, folder: RunFolder) -> None:
    """One training on every pixel of the masks: the upper line. Nothing is asked and no label is written."""
    if not folder.rounds():
        model, training = experiment.trained(0) if folder.has_model(0) else experiment.train(0, None)
        experiment.record(0, [], PixelLabels(), training, experiment.evaluate(0, model))


def answered(experiment: Experiment, folder: RunFolder, round: int, questions: list[Question]) -> list[PixelLabel]:
    """Ask what has no answer yet, journal what comes in, and label the round's pixels."""
    journal = folder.journal
    known = fold(journal.events())
    experiment.check_answers(list(known.values()))
    open_questions = [question for question in questions if question.item not in known]
    if open_questions:
        experiment.oracle.ask(open_questions)
        wanted = {question.item for question in open_questions}
        answers = [answer for answer in experiment.oracle.collect().answers if answer.item in wanted]
        experiment.check_answers(answers)
        journal.append(as_events(answers))
        known |= {answer.item: answer for answer in answers}
    missing = sum(question.item not in known for question in questions)
    if missing:
        raise Waiting(f"Round {round} waits for {missing} of {len(questions)} answers.")
    source = experiment.config.oracle.name
    return [
        PixelLabel(q.item, q.image, q.y, q.x, a.name, round, source, a.who, a.seconds)
        for q, a in ((question, known[question.item]) for question in questions)
    ]
