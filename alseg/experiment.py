"""The pieces of a run put together: what the loop's phases do."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from alseg.config import Resolved, RunConfig
from alseg.engine import evaluate as evaluation
from alseg.engine.acquire import Pool, ask_at_random, ask_model
from alseg.engine.batches import BatchSource
from alseg.engine.device import choose_device, choose_precision, describe_device, deterministic, seeded
from alseg.engine.images import DecodedImages
from alseg.engine.train import TrainResult, train
from alseg.errors import AlsegError, UserMistake
from alseg.plugins import Registry
from alseg.progress import Progress
from alseg.protocols import Model, Oracle
from alseg.report.statistics import round_record
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
        self.split, self._pool, self._held_out = open_images(resolved, progress)
        choice = self.config.oracle
        self.oracle: Oracle = self._pieces["oracle"].build(
            choice.options, images=self._pool, classes=self.classes, seed=self.config.seed
        )
        self._acquirer = self._pieces["acquirer"].build(self.config.acquirer.options)
        self._selector = self._pieces["selector"].build(self.config.selector.options)
        truth = self.oracle.sees_truth
        self._skip_void = self.config.void == "skip" or (self.config.void is None and truth)
        check_data(self.config, self._pool, truth or self._skip_void, len(self.classes))
        self._trained: tuple[int, Model, TrainResult] | None = None  # the last round's
        self._acquire_seconds = 0.0

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        self._progress.say(line)

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
                    size=_pair(config.query.size),
                    device=self._device,
                    precision=self._precision,
                    advance=lambda done: step(done, ""),
                )
        short = sum(len(questions) < n for questions in asked)
        if short:
            self.say(f"Round {round}: {short} images have fewer than {n} candidates left and are asked fewer pixels.")
        self._acquire_seconds = time.perf_counter() - started
        return [question for questions in asked for question in questions]

    def train(self, round: int, labels: PixelLabels) -> tuple[Model, TrainResult]:
        """A model from the pretrained encoder, trained on all labels so far and stored."""
        config, settings = self.config, self.config.train
        model = self._fresh(round)
        source = BatchSource(
            self._pool,
            labels,
            self.classes,
            config.augment,
            size=_pair(settings.size) or self._pool.sizes[0],
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
            )
        assert isinstance(model, nn.Module)
        self.folder.write_model(round, model, asdict(result))
        self._trained = round, model, result
        return model, result

    def trained(self, round: int) -> tuple[Model, TrainResult]:
        """A round's model and how its training went, from memory or from the run."""
        if self._trained is None or self._trained[0] != round:
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
        config = self.config
        with (
            self._progress.phase(f"round {round}: evaluating", len(self._held_out)) as step,
            deterministic(config.deterministic),
        ):
            matrix = evaluation.confusion_matrix(
                model,
                self._held_out,
                self.classes,
                size=_pair(config.evaluate.size) or _pair(config.query.size),
                batch_size=config.evaluate.batch_size,
                device=self._device,
                precision=self._precision,
                workers=config.train.workers,
                advance=lambda done: step(done, ""),
            )
        self.folder.write_confusion(round, matrix, self.classes)
        return Evaluation(matrix, time.perf_counter() - started)

    def record(
        self,
        round: int,
        questions: Sequence[Question],
        labels: PixelLabels,
        training: TrainResult,
        scored: Evaluation,
    ) -> None:
        """Add the round to rounds.jsonl."""
        record = round_record(
            round=round,
            questions=questions,
            labels=labels,
            images=len(self._pool),
            classes=self.classes,
            split=self.split,
            matrix=scored.matrix,
            loss=training.loss,
            train_seconds=training.seconds,
            acquire_seconds=self._acquire_seconds,
            evaluate_seconds=scored.seconds,
            device=describe_device(self._device),
        )
        self.folder.write_round(record)
        self._notify("round_finished", record=record)
        value = "no evaluation" if record["miou"] is None else f"mIoU {record['miou']:.3f} on {self.split}"
        self.say(f"Round {round}: {record['pixels_per_image']:g} pixels an image, {value}.")

    def _fresh(self, round: int, pretrained: bool = True) -> Model:
        choice, piece = self.config.model, self._pieces["model"]
        options = dict(choice.options)
        if not pretrained and "weights" in options:
            options["weights"] = "none"  # stored weights replace them all
        with seeded(self._device, self.config.seed, round, "initial weights"):
            model = piece.build(options, classes=len(self.classes))
        if not isinstance(model, nn.Module) or not isinstance(model, Model):
            raise AlsegError(f"The model {choice.name!r} is no nn.Module with encode, decode and parameter_groups.")
        if pretrained and round == 0 and getattr(model, "origin", None):
            self.folder.record({"weights": dict(model.origin)})  # type: ignore[arg-type]
        return model.to(device=self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _notify(self, hook: str, **arguments: Any) -> None:
        for failure in self._registry.notify(hook, folder=str(self.folder.path), **arguments):
            self.say(failure)


def open_images(resolved: Resolved, progress: Progress) -> tuple[str | None, DecodedImages, DecodedImages | None]:
    """The evaluation split's name, the pool, and the evaluation images where they have masks."""
    dataset, config = resolved.dataset, resolved.config
    if "train" not in dataset.splits:
        raise UserMistake(f"The dataset {config.dataset.name!r} has no images to train on.")
    if config.split is not None and config.split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise UserMistake(f"The dataset {config.dataset.name!r} has no split {config.split!r}; there are {there}.")
    split = config.split or next((name for name in ("val", "test") if name in dataset.splits), None)
    memory = physical_memory() // 4
    opened: dict[str, DecodedImages] = {}
    for name in ("train", split):
        if name is None:
            continue
        images = dataset.images(name)
        if len(images) == 0:
            raise UserMistake(f"The split {name!r} of the dataset {config.dataset.name!r} is empty.")
        with progress.phase(f"reading {name} images", len(images)) as step:
            opened[name] = DecodedImages(
                images, dataset.classes, memory, config.train.workers, advance=partial(step, 1, "")
            )
        memory -= opened[name].bytes
    held_out = opened[split] if split is not None else None
    if held_out is not None and not any(held_out.has_mask):
        split, held_out = None, None
    if held_out is not None and not all(held_out.has_mask):
        missing = held_out.keys[held_out.has_mask.index(False)]
        raise UserMistake(
            f"The image {missing} of split {split!r} has no mask while others have: add the mask or remove the image."
        )
    return split, opened["train"], held_out


def check_data(config: RunConfig, pool: DecodedImages, needs_masks: bool, classes: int) -> None:
    """Refuse what cannot work before anything is trained."""
    if needs_masks and not all(pool.has_mask):
        missing = pool.keys[pool.has_mask.index(False)]
        raise UserMistake(
            f"The image {missing} has no mask, which the oracle {config.oracle.name!r} or --void skip needs: add it, "
            "or remove the image."
        )
    height, width = min(pool.sizes, key=lambda size: size[0] * size[1])
    if config.first_pixels > height * width:
        raise UserMistake(f"first_pixels is {config.first_pixels}, but the smallest image has {height * width} pixels.")
    for name, size, batch in (
        ("train.size", _pair(config.train.size) or pool.sizes[0], config.train.batch_size),
        ("query.size", _pair(config.query.size) or max(pool.sizes), config.query.batch_size),
        ("evaluate.size", _pair(config.evaluate.size) or (1, 1), config.evaluate.batch_size),
    ):
        # at least the image, 32 channels at half its size and the class scores, in float32
        needed = batch * size[0] * size[1] * 4 * (3 + 8 + classes)
        if needed > physical_memory():
            raise UserMistake(
                f"{name} {size[0]}x{size[1]} in batches of {batch} takes over {needed / 1e9:.0f} GB; this machine has "
                f"{physical_memory() / 1e9:.0f} GB."
            )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _pair(size: Any) -> tuple[int, int] | None:
    return None if size is None else (size.height, size.width)
