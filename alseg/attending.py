"""Who answers a round: picks first, where somebody picks, then classes."""

from __future__ import annotations

import contextlib
import getpass
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alseg.answering import Attendance, OpenRound
from alseg.calling import called
from alseg.config import RunConfig, stored_config
from alseg.engine.images import digest
from alseg.errors import AlsegError, UserMistake, Waiting
from alseg.hints import command, files_in, plugin_hint
from alseg.ledger import NOTHING_TWICE, asks_of
from alseg.looking import Looking
from alseg.moved import check_classes, moved
from alseg.opened import ReadOnly, open_dataset
from alseg.oracles import Named, attends, check_oracle, let_answer, let_attend
from alseg.plugins import Registry
from alseg.progress import Progress, Quiet
from alseg.protocols import Images
from alseg.schedule import Schedule
from alseg.store import SETTINGS, RunFolder, name_of
from alseg.trust import plan_of
from alseg.values import Classes, PixelLabels, Question

NOBODY_WAITS = "Nobody waits for answers any more; what was answered is kept."


def is_person(piece: Any) -> bool:
    """Whether a person stands behind a piece, who may take a week."""
    return attends(piece) and bool(getattr(piece, "is_person", False))


def attended(round: OpenRound, selector: Named, oracle: Named) -> None:
    """Let whoever picks pick and whoever answers answer; what is not answered then is waited for."""
    if round.unplaced() and attends(selector.piece):
        let_attend(round, selector)
    if not attends(oracle.piece):
        let_answer(round, oracle)
    elif not round.complete:
        let_attend(round, oracle)
    round.looking.close()


def built_answerers(
    registry: Registry, config: RunConfig, *, images: Images, classes: Classes, run: str
) -> tuple[Named, Named]:
    """The run's selector and oracle; AlsegError for an oracle that lacks what every oracle has."""
    selector, oracle = registry.find("selector", config.selector.name), registry.find("oracle", config.oracle.name)
    given: dict[str, Any] = {"images": ReadOnly(images), "classes": classes, "seed": config.seed, "run": run}
    asked = Named(oracle.build(config.oracle.options, **given), oracle.described())
    check_oracle(asked)
    return Named(selector.build(config.selector.options), selector.described()), asked


def check_people(config: RunConfig, selector: Any, oracle: Any, attendance: Attendance | None) -> None:
    """UserMistake where settings do not go with who picks and who answers."""
    if attendance is not None and not is_person(selector) and not is_person(oracle):
        raise UserMistake(
            "--wait, --browser, --host, --port and --close-votes are for runs that a person answers; this one's "
            f"oracle is {config.oracle.name!r}."
        )
    if config.trust.audit and config.labels == "all":
        raise UserMistake("trust.audit asks pixels, and full supervision (--labels all) asks none.")
    of_people = {"overlap": "asks people twice", "again": "asks people twice", "blind": "hides the model from people"}
    for name, does in of_people.items():
        if getattr(config.trust, name) and not attends(oracle):
            raise UserMistake(f"trust.{name} {does}; the oracle {config.oracle.name!r} is none.")
    if attends(selector) and config.pool_pixels_per_round is not None:
        raise UserMistake(
            f"The selector {config.selector.name!r} picks in each image: give --pixels-per-round instead of "
            "--pool-pixels-per-round."
        )


def check_answered(round: OpenRound) -> None:
    """Waiting where answers are missing, or are to be given again; it says who has to come."""
    missing, total = len(round.unanswered()) + len(round.unplaced()), len(round.placed())
    if round.complete and not missing:
        return
    lacking = round.lacking()
    waits = f"waits for {missing} of {total} answers" if missing else f"has all {total} answers and asks some again"
    words = [f"Round {round.number} {waits}."]
    if people := lacking.said():
        words += [people, f"If nobody comes, {closing(round.folder)} makes do with what is in."]
    raise Waiting(" ".join(words))


def check_labelled(round: OpenRound, labels: PixelLabels, oracle: Named) -> None:
    """UserMistake where no pixel of the pool has a class: the round would train on nothing."""
    mine = labels.audits(False)
    if any(label.name is not None for label in mine):
        return
    if oracle.piece.sees_truth and _are_void(round, mine):
        mend = "the masks are void there; start another run with --void skip, or with more --first-pixels"
    else:
        mend = 'None is "can\'t tell"; see why it answers that, and start another run, perhaps with more --first-pixels'
    raise UserMistake(
        f"{oracle.name} named no class at any of the {len(mine)} pixels asked, so that round {round.number} has "
        f"nothing to train on: {mend}."
    )


def _are_void(round: OpenRound, labels: PixelLabels) -> bool:
    """Whether the masks are void wherever these labels lie."""
    numbers = {round.images.key(i): i for i in range(len(round.images))}
    for image in {label.image for label in labels}:
        mask, (y, x) = round.images.mask(numbers[image]), labels.asked(image).T
        if mask is None or (mask[y, x] != round.classes.void).any():
            return False
    return True


def closing(folder: RunFolder) -> str:
    """The command, in backticks, that lets what has an answer wait for no further one."""
    return command(files_in(folder.settings().get("record")), "annotate", folder.path, "--close-votes")


def user_name() -> str:
    """The name under which this process runs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


@contextlib.contextmanager
def waiting(round: OpenRound, by_person: bool) -> Iterator[None]:
    """Where a person answers, Ctrl-C ends the waiting, not the run."""
    try:
        yield
    except KeyboardInterrupt:
        if by_person:
            check_answered(round)
        raise


def dismiss(selector: Named, oracle: Named, message: str, done: bool = False) -> None:
    """Tell those who attend that this process will ask nothing more; done: nor will the run.

    Where something else ends the process, that is what is to be said, and no failure of theirs.
    """
    for piece, name in (selector, oracle):
        leave = getattr(piece, "dismiss", None)
        if callable(leave):
            with contextlib.suppress(AlsegError) if sys.exception() else contextlib.nullcontext():
                called(name, partial(leave, message, done), "dismiss")


def annotate(
    folder: RunFolder,
    *,
    registry: Registry,
    data: Path | str | None = None,
    attendance: Attendance | None = None,
    progress: Progress | None = None,
) -> int:
    """Let a waiting round of a run be answered, without its training; how many answers it has at the end.

    data: where the run's images lie now. The run's lock is held meanwhile. Raises UserMistake where nothing is
    asked, Waiting where answers are still missing.
    """
    progress = progress or Quiet()
    with folder.lock():
        number, settings = len(folder.rounds()), moved(folder, folder.settings(), data=data)
        questions = folder.questions(number)
        go_on = f"{command(registry.files, 'resume', folder.path)} goes on."
        registry = registry.recalling(settings.get("record"))
        config = _config_of(registry, folder, settings)
        rounds = Schedule(config, folder.asked()).total_rounds()
        if number >= rounds:
            raise UserMistake(f"The run {folder.path} is complete: it asks nothing any more.")
        if not questions or folder.has_model(number):
            raise UserMistake(f"The run {folder.path} asks nothing now: {go_on}")
        dataset = open_dataset(registry.find("dataset", config.dataset.name), config.dataset.options)
        check_classes(folder, dataset.classes)
        images = Unchanged(dataset.images("train"), folder.images())
        if data is not None:
            folder.write_settings(settings)
        selector, oracle = built_answerers(
            registry, config, images=images, classes=dataset.classes, run=name_of(settings.get("record"))
        )
        by_person = is_person(oracle.piece) or (is_person(selector.piece) and questions[0].y is None)
        if not by_person:
            raise UserMistake(f"The pixels of {folder.path} are labelled by {config.oracle.name!r}: {go_on}")
        with open_round(
            folder,
            number,
            questions,
            images=images,
            classes=dataset.classes,
            asks_class=attends(oracle.piece),
            registry=registry,
            config=config,
            attendance=attendance,
            progress=progress,
        ) as round:
            try:
                with waiting(round, True):
                    attended(round, selector, oracle)
                check_answered(round)
            except Waiting as wait:
                dismiss(selector, oracle, NOBODY_WAITS)
                raise Waiting(f"{wait} What was answered is kept; the same command goes on.") from wait
            last_word = f"All questions of this round are answered. {go_on}"
            dismiss(selector, oracle, last_word, done=number + 1 >= rounds)
        return len(questions)


def _config_of(registry: Registry, folder: RunFolder, settings: Mapping[str, Any]) -> RunConfig:
    """A run's configuration as far as answering needs it."""
    try:
        return stored_config(registry, settings, ("dataset", "selector", "oracle"))
    except UserMistake as error:
        hint = plugin_hint(settings.get("record"), folder.path)
        raise UserMistake(f"{folder.path / SETTINGS} cannot be taken up: {error}{hint}") from error


class Unchanged:
    """`Images` of a run's pool, each as it was when the run began; UserMistake where it is not."""

    def __init__(self, images: Images, lines: Sequence[Mapping[str, Any]]) -> None:
        self._images = images
        self._digests = {line["image"]: line["pixels"] for line in lines if line["split"] == "train"}
        keys = {images.key(i) for i in range(len(images))}
        gone = next((key for key in self._digests if key not in keys), None)
        if gone is not None:
            raise UserMistake(f"The image {gone}, which the run began with, is gone: put it back.")

    def __len__(self) -> int:
        return len(self._images)

    def key(self, i: int) -> str:
        """The image's name."""
        return self._images.key(i)

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        image = np.array(self._images.image(i))
        if digest(image) != self._digests.get(self.key(i)):
            raise UserMistake(f"The image {self.key(i)} is not what it was when the run began: put it back.")
        return image

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W]."""
        return self._images.mask(i)


@contextlib.contextmanager
def open_round(
    folder: RunFolder,
    number: int,
    questions: list[Question],
    *,
    images: Images,
    classes: Classes,
    asks_class: bool,
    registry: Registry,
    config: RunConfig,
    attendance: Attendance | None,
    progress: Progress,
) -> Iterator[OpenRound]:
    """A run's round as it stands in its journal, and on the screen how far it is."""
    plan = plan_of(questions, config.trust, config.seed, number) if asks_class else NOTHING_TWICE
    with progress.phase(f"round {number}: answers", len(asks_of(questions, plan))) as step:
        round = OpenRound(
            number,
            questions,
            folder,
            images=images,
            sizes=folder.sizes(),
            classes=classes,
            labels=folder.labels().before(number),
            source=config.oracle.name,
            asks_class=asks_class,
            plan=plan,
            looking=Looking(registry, folder, number, images, config.seed),
            rounds=Schedule(config, folder.asked()).total_rounds(),
            attendance=attendance,
            advance=lambda count: step(count, ""),
            say=progress.say,
        )
        if round.attendance.close_votes and (closed := round.close_votes(user_name())):
            progress.say(f"Round {number}: questions closed with the votes that are in: {closed}.")
        yield round
