"""The pieces of a run put together: what the loop's phases do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from alseg.config import Resolved, RunConfig
from alseg.data import check_data, open_images
from alseg.engine import evaluate as evaluation
from alseg.engine.acquire import Pool, ask_at_random, ask_model, within_budget
from alseg.engine.batches import BatchSource
from alseg.engine.checks import checked_acquirer, checked_selector
from alseg.engine.device import choose_device, choose_precision, describe_device, deterministic, seeded
from alseg.engine.images import DecodedImages
from alseg.engine.train import TrainResult, train
from alseg.errors import AlsegError
from alseg.options import fitted
from alseg.plugins import Registry
from alseg.progress import Progress
from alseg.protocols import Model, Oracle
from alseg.report.statistics import asked_statistics, paper_statistics, score_statistics
from alseg.store import RunFolder
from alseg.values import PixelLabels, Question


@dataclass(frozen=True)
class Evaluation:
    """A round's confusion matrix, or None where no mask exists, and how long it took."""

    matrix: np.ndarray | None
    seconds: float


class Experiment:
    """Opens data and pieces, checks them against the settings, and carries out the phases of rounds."""

    def __init__(self, registry: Registry, resolved: Resolved, progress: Progress) -> None:
        self._registry, self._pieces, self._progress = registry, resolved.pieces, progress
        self.config: RunConfig = resolved.config
        self.classes = resolved.dataset.classes
        self._device = choose_device(self.config.device)
        self._precision = choose_precision(self.config.precision, self._device)
        self.split, self._pool, self._held_out, self._test = open_images(resolved, progress)
        choice = self.config.oracle
        self.oracle: Oracle = self._pieces["oracle"].build(
            choice.options, images=self._pool, classes=self.classes, seed=self.config.seed
        )
        acquirer, selector = self._pieces["acquirer"], self._pieces["selector"]
        self._acquirer = checked_acquirer(acquirer.build(self.config.acquirer.options), acquirer.described())
        self._selector = checked_selector(selector.build(self.config.selector.options), selector.described())
        truth = self.oracle.sees_truth
        self._skip_void = self.config.void == "skip" or (self.config.void is None and truth)
        needs_masks = truth or self._skip_void or self.config.labels == "all"
        check_data(self.config, self._pool, needs_masks, len(self.classes))
        self._trained: tuple[int, Model, TrainResult] | None = None  # the last round's
        self._first: Model | None = None
        self._acquire_seconds = 0.0

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        self._progress.say(line)

    def prepare(self) -> None:
        """Build the first round's model, so that what cannot be built stops a run before it has a folder."""
        self._first = self._fresh(0)

    def facts(self) -> dict[str, Any]:
        """What the settings do not say: sizes of the data, device, void policy."""
        return {
            "classes": list(self.classes.names),
            "train_images": len(self._pool),
            "split": self.split or "none",
            "evaluation_images": len(self._held_out) if self._held_out is not None else 0,
            "device": describe_device(self._device),
            "precision": str(self._precision).removeprefix("torch."),
            "void": "skip" if self._skip_void else "ask",
            "weights": dict(getattr(self._first, "origin", None) or {}),
        }

    def started(self, folder: RunFolder) -> None:
        """The run's folder is there: tell the plugins that the run begins or goes on."""
        self.folder = folder
        self._notify("run_started", settings=self.folder.settings())

    def finished(self) -> list[dict[str, Any]]:
        """Tell the plugins that the run is complete; all its records."""
        records = self.folder.rounds()
        self._notify("run_finished", records=records)
        return records

    def acquire(self, round: int, labels: PixelLabels) -> list[Question]:
        """The questions of a round: at random in round 0, by acquirer and selector later."""
        config, started = self.config, time.perf_counter()
        pool = Pool(
            self._pool,
            self.classes,
            labels,
            skip_void=self._skip_void,
            seed=config.seed,
            round=round,
            device=self._device,
            batch_size=config.query.batch_size,
            workers=config.train.workers,
        )
        n = config.pixels_in(round)
        with (
            self._progress.phase(f"round {round}: choosing pixels", len(self._pool)) as step,
            deterministic(config.deterministic),
        ):
            if round == 0:
                asked = ask_at_random(pool, n, lambda done: step(done, ""))
            else:
                asked = ask_model(
                    pool,
                    n,
                    self.trained(round - 1)[0],
                    self._acquirer,
                    self._selector,
                    self.classes,
                    size=config.query.size,
                    device=self._device,
                    precision=self._precision,
                    advance=lambda done: step(done, ""),
                )
        short, wanted = sum(len(proposals) < n for proposals in asked), config.pool_pixels_per_round
        questions = within_budget(asked, wanted)
        if wanted is not None and len(questions) < wanted:
            self.say(f"Round {round}: only {len(questions)} of {wanted} pixels can be asked within the cap.")
        elif wanted is None and short:
            self.say(f"Round {round}: {short} images have fewer than {n} candidates left and are asked fewer pixels.")
        self._acquire_seconds = time.perf_counter() - started
        return questions

    def train(self, round: int, labels: PixelLabels | None) -> tuple[Model, TrainResult]:
        """A model from the pretrained encoder, trained on all labels so far (None: on masks) and stored."""
        config, settings = self.config, self.config.train
        model = self._first if round == 0 and self._first is not None else self._fresh(round)
        self._first = None
        source = BatchSource(
            self._pool,
            labels,
            self.classes,
            config.augment,
            size=fitted(settings.size, self._pool.sizes[0]),
            resize=settings.resize,
            batch_size=settings.batch_size,
            seed=config.seed,
            round=round,
            device=self._device,
            workers=settings.workers,
        )
        total, epochs = source.images_per_epoch * settings.epochs, [0]
        with self._progress.phase(f"round {round}: training", total) as step, deterministic(config.deterministic):

            def advance(images: int, loss: float | None) -> None:
                epochs[0] += loss is not None
                word = "" if loss is None else f"epoch {epochs[0]} of {settings.epochs}, loss {loss:.3f}"
                step(images, word)

            result = train(
                model,
                source,
                settings,
                seed=config.seed,
                round=round,
                device=self._device,
                precision=self._precision,
                advance=advance,
                watch=None if self._test is None else partial(self._test_miou, model),
            )
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
            model = self._fresh(round, pretrained=False)
            assert isinstance(model, nn.Module)
            result = TrainResult(**self.folder.read_model(round, model))
            self._trained = round, model, result
        return self._trained[1:]

    def evaluate(self, round: int, model: Model) -> Evaluation:
        """The model's confusion matrix on the evaluation split."""
        started = time.perf_counter()
        if self._held_out is None:
            return Evaluation(None, 0.0)
        with self._progress.phase(f"round {round}: evaluating", len(self._held_out)) as step:
            matrix = self._confusion(model, self._held_out, lambda done: step(done, ""))
        self.folder.write_confusion(round, matrix, self.classes)
        return Evaluation(matrix, time.perf_counter() - started)

    def _test_miou(self, model: Model) -> float:
        assert self._test is not None
        return evaluation.scores(self._confusion(model, self._test), self.classes).miou or 0.0

    def _confusion(
        self, model: Model, images: DecodedImages, advance: Callable[[int], None] = lambda done: None
    ) -> np.ndarray:
        config = self.config
        with deterministic(config.deterministic):
            return evaluation.confusion_matrix(
                model,
                images,
                self.classes,
                size=config.evaluate.size or config.query.size,
                batch_size=config.evaluate.batch_size,
                device=self._device,
                precision=self._precision,
                workers=config.train.workers,
                advance=advance,
            )

    def record(
        self,
        round: int,
        questions: Sequence[Question],
        labels: PixelLabels,
        training: TrainResult,
        scored: Evaluation,
    ) -> None:
        """Add the round to rounds.jsonl."""
        if self.config.labels == "all":
            known = self._known_pixels()
            asked = asked_statistics(round, questions, labels, len(self._pool))
            asked |= {"labelled_pixels": known, "pixels_per_image": known / len(self._pool)}
        else:
            asked = asked_statistics(round, questions, labels, len(self._pool))
        record = {
            "round": round,
            **asked,
            **score_statistics(self.split, scored.matrix, self.classes),
            **paper_statistics(training.watched if self._test is not None else None),
            "loss": training.loss,
            "train_seconds": training.seconds,
            "acquire_seconds": self._acquire_seconds,
            "evaluate_seconds": scored.seconds,
            "device": describe_device(self._device),
        }
        self.folder.write_round(record)
        self._notify("round_finished", record=record)
        value = "no evaluation" if record["miou"] is None else f"mIoU {record['miou']:.3f} on {self.split}"
        self.say(f"Round {round}: {record['pixels_per_image']:g} pixels an image, {value}.")

    def _known_pixels(self) -> int:
        masks = (self._pool.mask(i) for i in range(len(self._pool)))
        return sum(int((mask != self.classes.void).sum()) for mask in masks if mask is not None)

    def _fresh(self, round: int, pretrained: bool = True) -> Model:
        choice, piece = self.config.model, self._pieces["model"]
        options = dict(choice.options)
        if not pretrained and "weights" in options:
            options["weights"] = "none"  # stored weights replace them all
        with seeded(self._device, self.config.seed, round, "initial weights"):
            model = piece.build(options, classes=len(self.classes))
        if not isinstance(model, nn.Module) or not isinstance(model, Model):
            raise AlsegError(f"The model {choice.name!r} is no nn.Module with encode, decode and parameter_groups.")
        return model.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _notify(self, hook: str, **arguments: Any) -> None:
        for failure in self._registry.notify(hook, folder=str(self.folder.path), **arguments):
            self.say(failure)
