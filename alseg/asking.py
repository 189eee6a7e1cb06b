"""What a round asks: candidates, utilities and choices over the pool, within the budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from alseg import noise
from alseg.config import RunConfig
from alseg.engine.acquire import Pool, Proposals, View, ask_at_random, ask_model, views, within_budget
from alseg.engine.checks import compared
from alseg.engine.device import deterministic, in_smaller_batches
from alseg.engine.images import DecodedImages
from alseg.engine.team import ALONE, Team
from alseg.errors import AlsegError
from alseg.progress import Progress
from alseg.protocols import Acquirer, Model, Selector
from alseg.trust import audit_questions
from alseg.values import Classes, PixelLabels, Question


class Asking:
    """Acquirer and selector at work on the pool.

    skip_void: void pixels are no candidates. chooser: what the selector is called.
    """

    def __init__(
        self,
        images: DecodedImages,
        classes: Classes,
        acquirer: Acquirer,
        selector: Selector,
        config: RunConfig,
        *,
        skip_void: bool,
        device: torch.device,
        precision: torch.dtype,
        progress: Progress,
        chooser: str,
        team: Team = ALONE,
    ) -> None:
        self._images, self._classes, self._config = images, classes, config
        self._acquirer, self._selector = acquirer, selector
        self._skip_void, self._device, self._precision = skip_void, device, precision
        self._progress, self._chooser, self._team = progress, chooser, team

    def questions(self, round: int, labels: PixelLabels, model: Model | None, n: int) -> list[Question]:
        """The questions of a round, at most n an image: at random without a model, else by acquirer and selector."""
        with deterministic(self._config.deterministic):
            asked = in_smaller_batches(
                lambda batch_size: self._asked(round, labels, model, n, batch_size),
                self._config.query.batch_size,
                "choosing pixels in batches",
                self._progress.say,
                # members' shares come from the same batches: one of them cannot go on with smaller ones
                1 if self._team.size == 1 else self._config.query.batch_size,
            )
        wanted = self._config.pool_pixels_per_round
        questions = within_budget(asked, wanted, partial(noise.chance, self._config.seed, round, "ties over the pool"))
        if len(questions) < (n * len(asked) if wanted is None else wanted):
            self._say_why(round, labels, [len(proposals) for proposals in asked], n)
        return questions

    def _say_why(self, round: int, labels: PixelLabels, chosen: Sequence[int], n: int) -> None:
        """Why fewer are asked than were to be; AlsegError where the selector chose nothing of what there is.

        chosen: how many in each image.
        """
        pool, wanted = self._pool(round, labels), self._config.pool_pixels_per_round
        counts = [n if count == n else min(n, int(pool.candidates(i).sum())) for i, count in enumerate(chosen)]
        if sum(counts) and not sum(chosen):
            raise AlsegError(
                f"{self._chooser} chose nothing in round {round}, where {sum(count > 0 for count in counts)} images "
                "have candidates: it must choose min(n, candidates) of each image, as alseg.pick does."
            )
        if wanted is None:
            self._say_short(round, sum(count < n for count in counts), n)
        elif sum(counts) < wanted:
            self._progress.say(f"Round {round}: only {sum(counts)} of {wanted} pixels can be asked within the cap.")
        if left := sum(count < there for count, there in zip(chosen, counts, strict=True)):
            self._progress.say(f"{self._chooser} chose fewer pixels in round {round} than it was to, in {left} images.")

    def _asked(self, round: int, labels: PixelLabels, model: Model | None, n: int, batch_size: int) -> Proposals:
        pool = self._pool(round, labels, batch_size=batch_size, team=self._team)
        with self._progress.phase(f"round {round}: choosing pixels", len(self._images)) as step:

            def advance(done: int) -> None:
                step(done, "")

            if model is None:
                return ask_at_random(pool, n, advance, self._config.pool_pixels_per_round)
            return ask_model(
                pool,
                n,
                model,
                self._acquirer,
                self._selector,
                self._classes,
                size=self._config.query.size,
                device=self._device,
                precision=self._precision,
                advance=advance,
                most=self._config.pool_pixels_per_round,
            )

    def picks(self, round: int, labels: PixelLabels, n: int) -> list[Question]:
        """Questions without a pixel, for somebody to pick, at most n an image."""
        pool = self._pool(round, labels)
        counts = [min(n, int(pool.candidates(i).sum())) for i in range(len(self._images))]
        self._say_short(round, sum(count < n for count in counts), n)
        places = zip(self._images.keys, counts, strict=True)
        return [Question("", key, None, None) for key, count in places for _ in range(count)]

    def _say_short(self, round: int, short: int, n: int) -> None:
        if short:
            self._progress.say(
                f"Round {round}: {short} images have fewer than {n} candidates left and are asked fewer pixels."
            )

    def audited(self, round: int, labels: PixelLabels, questions: list[Question]) -> list[Question]:
        """A round's questions with the random pixels among them that measure the model."""
        count, images = self._config.trust.audit, self._images
        if not count or not questions:
            return questions

        def known(i: int, y: int, x: int) -> bool:
            mask = images.mask(i) if self._skip_void else None
            return mask is None or bool(mask[y, x] != self._classes.void)

        taken = [(p.image, p.y, p.x) for p in (*labels, *questions)]
        seed, order = self._config.seed, {key: i for i, key in enumerate(images.keys)}
        audit = audit_questions(images.keys, images.sizes, taken, count, known, seed=seed, round=round)
        return sorted([*questions, *audit], key=lambda question: order[question.image])

    def rehearse(self, model: Model, acquirer: str, selector: str, n: int) -> None:
        """Let acquirer and selector choose n pixels in the first image: what cannot work fails before training.

        acquirer, selector: what they are called where they changed what they are handed.
        """
        pool = self._pool(1, PixelLabels(), [0])
        size, device, precision = self._config.query.size, self._device, self._precision
        pieces = compared(self._acquirer, acquirer), compared(self._selector, selector)
        in_smaller_batches(
            lambda _: ask_model(pool, n, model, *pieces, self._classes, size=size, device=device, precision=precision),
            1,
            "choosing pixels in batches",
            self._progress.say,
        )

    def views(self, round: int, labels: PixelLabels, model: Model, numbers: Sequence[int]) -> Iterator[View]:
        """What the model of a round thinks of some images."""
        pool = self._pool(round, labels, numbers)
        size, device, precision = self._config.query.size, self._device, self._precision
        return views(pool, model, self._acquirer, size=size, device=device, precision=precision)

    def _pool(
        self,
        round: int,
        labels: PixelLabels,
        numbers: Sequence[int] | None = None,
        batch_size: int = 1,
        team: Team = ALONE,
    ) -> Pool:
        return Pool(
            self._images,
            self._classes,
            labels,
            skip_void=self._skip_void,
            seed=self._config.seed,
            round=round,
            device=self._device,
            batch_size=batch_size,
            workers=self._config.train.workers,
            numbers=numbers,
            team=team,
        )
