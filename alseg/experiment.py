"""The pieces of a run put together: what the loop's phases do."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from alseg.answering import Attendance, OpenRound
from alseg.asking import Asking
from alseg.attending import built_answerers, check_people, is_person, open_round
from alseg.colours import colours_of
from alseg.config import Resolved, RunConfig
from alseg.data import check_data, known_pixels, open_images, refuse_changed
from alseg.engine.calls import origin_of
from alseg.engine.checks import checked_acquirer, checked_selector
from alseg.engine.device import (
    choose_device,
    choose_precision,
    describe_device,
    keep_freed_memory,
)
from alseg.engine.team import ALONE, Team
from alseg.engine.train import TrainResult
from alseg.models import Models
from alseg.moved import check_classes, check_weights, digests, same_weights
from alseg.oracles import attends
from alseg.plugins import Registry
from alseg.progress import Progress
from alseg.protocols import Model
from alseg.report.statistics import asked_statistics, paper_statistics, score_statistics
from alseg.report.table import short
from alseg.reporting import Reporting
from alseg.schedule import Schedule
from alseg.scoring import Scoring
from alseg.store import RunFolder
from alseg.telling import Life
from alseg.training import train_round
from alseg.values import PixelLabel, PixelLabels, Question


@dataclass(frozen=True)
class Evaluation:
    """A round's confusion matrix, or None where no mask exists, the accuracy at audited pixels, and seconds."""

    matrix: np.ndarray | None
    audit: dict[str, Any] | None
    seconds: float


class Experiment:
    """Opens data and pieces, checks them against the settings, and carries out the phases of rounds."""

    def __init__(
        self,
        registry: Registry,
        resolved: Resolved,
        progress: Progress,
        team: Team = ALONE,
        attendance: Attendance | None = None,
        run: str = "",
    ) -> None:
        self._team, self._attendance = team, attendance
        self._registry, self._pieces, self._progress = registry, resolved.pieces, progress
        self.config: RunConfig = resolved.config
        self.classes = resolved.dataset.classes
        team.check_batches(self.config.train.batch_size)
        team.check_terms(self.config.terms)
        self.schedule = Schedule(self.config)
        self._reporting = Reporting(registry, self.config, progress.say)
        self._device = choose_device(self.config.device)
        if self._device.type == "cpu":
            keep_freed_memory()
        self._precision = choose_precision(self.config.precision, self._device)
        self._models = Models(registry, self.config, len(self.classes), self._device)
        self.images = open_images(resolved, progress)
        self.split, self._pool, self._held_out = self.images.split, self.images.pool, self.images.held_out
        self.selector, self.oracle = built_answerers(
            registry, self.config, images=self._pool, classes=self.classes, run=run
        )
        selector, oracle, acquirer = self.selector.piece, self.oracle.piece, self._pieces["acquirer"]
        self._picks, self.by_person = attends(selector), is_person(oracle) or is_person(selector)
        check_people(self.config, selector, oracle, attendance)
        truth = oracle.sees_truth
        self._skip_void = self.config.void == "skip" or (self.config.void is None and truth)
        needs_masks = truth or self._skip_void or self.config.labels == "all"
        check_data(self.config, self._pool, needs_masks, len(self.classes), self._device.type)
        self._asking = Asking(
            self._pool,
            self.classes,
            checked_acquirer(acquirer.build(self.config.acquirer.options), acquirer.described()),
            checked_selector(*self.selector),
            self.config,
            skip_void=self._skip_void,
            device=self._device,
            precision=self._precision,
            progress=progress,
            chooser=self.selector.name,
            team=team,
        )
        self._scoring = Scoring(
            self.images,
            self.classes,
            self.config,
            device=self._device,
            precision=self._precision,
            progress=progress,
            team=team,
        )
        self._trained: tuple[int, Model, TrainResult] | None = None  # the last round's
        self._first: Model | None = None
        self.acquire_seconds = 0.0  # of the last call of `acquire`

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        self._progress.say(line)

    def prepare(self) -> None:
        """Build the first round's model and rehearse its asking: what cannot work stops a run before its folder."""
        self._first = self._models.fresh(0)
        if not self._picks:
            n = max(1, self.pixels_in(1))
            self._asking.rehearse(self._first, self._pieces["acquirer"].described(), self.selector.name, n)

    def pixels_in(self, round: int) -> int:
        """How many pixels an image a round asks, at most."""
        return self.schedule.pixels_in(round, len(self._pool))

    def fingerprints(self) -> list[dict[str, Any]]:
        """A line an image, which tells it from any other."""
        return self.images.fingerprints()

    def check_same_data(self, folder: RunFolder) -> None:
        """UserMistake where classes, images or moved weights are no longer those that the run began with."""
        check_classes(folder, self.classes)
        refuse_changed(folder.images(), self.fingerprints())
        check_weights(folder, self.config.model, self._models.fresh)

    def facts(self) -> dict[str, Any]:
        """What the settings do not say: sizes of the data, device, void policy."""
        return {
            "classes": list(self.classes.names),
            "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours_of(self.classes)],
            "void_value": self.classes.void,
            "train_images": len(self._pool),
            "split": self.split or "none",
            "evaluation_images": len(self._held_out) if self._held_out is not None else 0,
            "device": describe_device(self._device),
            "precision": _named(self._precision),
            "void": "skip" if self._skip_void else "ask",
            "weights": origin_of(self._first),
        }

    def started(self, folder: RunFolder) -> AbstractContextManager[None]:
        """The run's folder is there: while it lasts, the plugins hear of the run, and of what ends it early."""
        self.folder, self.life = folder, Life(self._registry, folder, self.say)
        self.schedule = Schedule(self.config, folder.asked())
        own = choose_precision(folder.settings()["precision"], self._device)
        if own != self._precision:
            began = _named(self._precision)
            self.say(f"The run goes on in {began}, in which it began; it would begin in {_named(own)} here.")
        self._progress.scored(folder.rounds(), self.schedule.total_rounds())
        return self.life.lasting()

    def finished(self) -> list[dict[str, Any]]:
        """Tell the plugins that the run is complete; all its records."""
        records = self.folder.rounds()
        self._reporting.write(self.folder, figures=True)
        self.life.finished(records)
        return records

    def acquire(self, round: int, labels: PixelLabels) -> list[Question]:
        """The questions of a round: at random in round 0, by acquirer and selector later, or to be picked."""
        started, n = time.perf_counter(), self.pixels_in(round)
        if round and self._picks:
            questions = self._asking.picks(round, labels, n)
        else:
            model = self.trained(round - 1)[0] if round else None
            self._team.tell("ask", round, list(labels), model is not None, n)
            questions = self._questions(round, labels, model, n)
        self.acquire_seconds = time.perf_counter() - started
        return self._asking.audited(round, labels, questions)

    def answering(self, round: int, questions: list[Question]) -> AbstractContextManager[OpenRound]:
        """A round that is to be answered."""
        return open_round(
            self.folder,
            round,
            questions,
            images=self._pool,
            classes=self.classes,
            asks_class=attends(self.oracle.piece),
            registry=self._registry,
            config=self.config,
            attendance=self._attendance,
            progress=self._progress,
        )

    def train(self, round: int, labels: PixelLabels | None) -> tuple[Model, TrainResult]:
        """A model from the pretrained encoder, trained on all labels so far (None: on masks) and stored."""
        first, self._first = (self._first if round == 0 else None), None
        model = first if first is not None else same_weights(self.folder, self._models.fresh(round))
        self._team.tell("train", round, None if labels is None else list(labels))
        result = self._taught(round, labels, model)
        assert isinstance(model, nn.Module)
        self.folder.write_model(round, model, asdict(result))
        self._trained = round, model, result
        return model, result

    def trained(self, round: int) -> tuple[Model, TrainResult]:
        """A round's model and how its training went, from memory or from the run.

        A model that was taken away is trained again on the labels of its round.
        """
        if self._trained is None or self._trained[0] != round:
            if not self.folder.has_model(round):
                return self.train(round, self.folder.labels().before(round + 1))
            model, facts = self._models.stored(self.folder, round)
            self._trained = round, model, TrainResult(**facts)
        return self._trained[1:]

    def picture(self, round: int, labels: PixelLabels, model: Model) -> None:
        """Keep what the round's model thinks of a few training images, for the report."""
        seen = partial(self._asking.views, round + 1, labels, model)
        self._reporting.picture(self.folder, round, self._pool, self.classes, seen)

    def evaluate(self, round: int, model: Model, labels: PixelLabels) -> Evaluation:
        """The model's confusion matrix on the evaluation split, and its accuracy where `labels` audit it."""
        started = time.perf_counter()
        audit = self._scoring.audited(model, labels)
        if self._held_out is None:
            return Evaluation(None, audit, time.perf_counter() - started)
        self._team.tell("score")
        matrix = self._scoring.matrix(model, f"round {round}: evaluating")
        self.folder.write_confusion(round, matrix, self.classes)
        return Evaluation(matrix, audit, time.perf_counter() - started)

    def follow(self) -> None:
        """Another process leads: do this one's share of what it orders, until it is done."""
        model: Model | None = None
        while (order := self._team.told())[0] != "end":
            if order[0] == "train":
                labels = None if order[2] is None else PixelLabels(tuple(PixelLabel(*label) for label in order[2]))
                model = self._models.fresh(order[1])
                self._taught(order[1], labels, model)
                continue
            model = model or self._models.fresh(0)  # to be given the leader's weights
            if order[0] == "score":
                self._scoring.matrix(model)
            else:
                labels = PixelLabels(tuple(PixelLabel(*label) for label in order[2]))
                self._questions(order[1], labels, model if order[3] else None, order[4])

    def dismiss(self) -> None:
        """Let those that follow end."""
        self._team.tell("end")

    def _taught(self, round: int, labels: PixelLabels | None, model: Model) -> TrainResult:
        return train_round(
            model,
            self._pool,
            labels,
            self.classes,
            self.config,
            round=round,
            device=self._device,
            precision=self._precision,
            progress=self._progress,
            watch=None if self.images.test is None else partial(self._scoring.test_miou, model),
            team=self._team,
        )

    def _questions(self, round: int, labels: PixelLabels, model: Model | None, n: int) -> list[Question]:
        if model is not None:
            self._team.equal(model)
        return self._asking.questions(round, labels, model, n)

    def record(
        self,
        round: int,
        questions: Sequence[Question],
        labels: PixelLabels,
        training: TrainResult,
        scored: Evaluation,
    ) -> None:
        """Add the round to rounds.jsonl; pixels that only measure are counted apart."""
        questions, labels = [question for question in questions if not question.audit], labels.audits(False)
        asked = asked_statistics(round, questions, labels, len(self._pool))
        if self.config.labels == "all":
            known = known_pixels(self._pool, self.classes.void)
            asked |= {"labelled_pixels": known, "pixels_per_image": known / len(self._pool)}
        record = {
            "round": round,
            **asked,
            **score_statistics(self.split, scored.matrix, self.classes),
            "audit": scored.audit,
            **paper_statistics(training.watched if self.images.test is not None else None),
            "loss": training.loss,
            "decode": training.decode,
            "train_seconds": training.seconds,
            "acquire_seconds": self.folder.acquire_seconds(round),
            "evaluate_seconds": scored.seconds,
            "device": describe_device(self._device),
            "settings": digests(self.config),
        }
        self.folder.write_round(record)
        self._reporting.write(self.folder)
        self._progress.scored(self.folder.rounds(), self.schedule.total_rounds())
        self.life.recorded(record)
        value = "no evaluation" if record["miou"] is None else f"mIoU {record['miou']:.3f} on {self.split}"
        audit = scored.audit and f", accuracy {scored.audit['accuracy']:.3f} at {scored.audit['pixels']} audited pixels"
        self.say(f"Round {round}: {short(record['pixels_per_image'])} pixels an image, {value}{audit or ''}.")


def _named(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")
