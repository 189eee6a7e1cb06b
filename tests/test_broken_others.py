"""Each check of datasets, oracles, recipes, executors and trackers finds what it is for, and says how to mend it."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
from test_broken_acquirers import fails

from alseg import hookimpl
from alseg.compare.jobs import carry_out, log_of
from alseg.progress import Quiet
from alseg.testing import check_executor, check_oracle, checks_of
from alseg.testing.tiny_images import CLASSES, TinyDataset, TinyImages
from alseg.values import Answer, Answers, Classes

COUNTER = itertools.count()


class Data(TinyDataset):
    """The tiny dataset with something else in place; its images pass on what `spoilt` makes of them."""

    def __init__(self, spoilt=None, **changes):
        super().__init__({"train": 3, "val": 1}, (20, 24))
        self.recipe = "default"
        self._spoilt = spoilt
        self.__dict__.update(changes)

    def images(self, split):
        return (self._spoilt or TinyImages)(split, self._counts[split], self._size, True)


class Empty(TinyImages):
    def __len__(self):
        return 0


class OneName(TinyImages):
    def key(self, i):
        return "image"


class Counted(TinyImages):
    def key(self, i):
        return f"{next(COUNTER)}"


class Floats(TinyImages):
    def image(self, i):
        return super().image(i) / 255


class Values(TinyImages):
    def mask(self, i):
        return np.where(super().mask(i) == 1, 7, super().mask(i))


class Lists(TinyImages):
    def mask(self, i):
        return super().mask(i).tolist()


class Augmented(TinyImages):
    def image(self, i):
        return super().image(i) ^ np.uint8(next(COUNTER) % 251)


class OneFile(TinyImages):
    """Seeks and reads in two steps, in a place that all readers share."""

    place = 0

    def image(self, i):
        type(self).place = i
        time.sleep(0.001)
        return super().image(type(self).place)


class WithLambda(Data):
    def __init__(self):
        super().__init__()
        self.reader = lambda path: path


DATASETS = [
    ("builds", lambda: object(), "it has no classes, splits, recipe, images", "see Dataset in alseg's documentation"),
    ("classes", lambda: Data(classes=("a", "b")), "classes is tuple", "give an alseg.Classes(names, void)"),
    ("classes", lambda: Data(classes=Classes(("a", "a"), 255)), "each with a name of its own", ""),
    ("classes", lambda: Data(classes=Classes(("a", "b"), 1)), "void is 1, which is the class b", ""),
    ("splits", lambda: Data(splits=["train"]), "splits is ['train']", "give a tuple"),
    ("splits", lambda: Data(splits=("val",)), "without train", "name the images that may be asked train"),
    ("splits", lambda: Data(Empty), "the split 'train' is empty", "leave out of splits"),
    ("keys", lambda: Data(OneName), "two images of train are called 'image'", "all that tells them apart"),
    ("keys", lambda: Data(Counted), "other names or another order", "sort files by name"),
    ("images", lambda: Data(Floats), "The image train-0 is float64 [20, 24, 3]; it must be uint8 [H, W, 3]", ""),
    ("images", lambda: Data(Values), "holds 7 at (y 2, x 2): classes go from 0 to 2 and void is 255", ""),
    ("images", lambda: Data(Lists), "the mask of train-0 in train is list", "give a NumPy array, or None"),
    ("read-again", lambda: Data(Augmented), "read again, the image train-0 of train", "augmentation is alseg's own"),
    ("threads", lambda: Data(OneFile), "read by several threads at once", "threading.Lock"),
    ("pickling", WithLambda, "it cannot be pickled", "no open file, lock, lambda"),
    (
        "recipe",
        lambda: Data(recipe="camvit"),
        "its recipe 'camvit' is not registered; did you mean camvid",
        "register",
    ),
    ("published", lambda: Data(published={"train": "many"}), "published is {'train': 'many'}", '{"train": 367}'),
]


class Oracle:
    """Answers with the mask's class; what is spoilt is overridden."""

    sees_truth = True

    def __init__(self, images, classes):
        self.pool, self.classes, self.answers = images, classes, {}
        self.index = {images.key(i): i for i in range(len(images))}

    def name(self, question):
        value = self.pool.mask(self.index[question.image])[question.y, question.x]
        return None if value == self.classes.void else self.classes.names[value]

    def ask(self, questions):
        self.answers |= {q.item: Answer(q.item, self.name(q), "test") for q in questions}

    def collect(self):
        return Answers(tuple(self.answers.values()), complete=True)


class NoCollect:
    sees_truth = True

    def ask(self, questions):
        pass


class PerhapsTruth(Oracle):
    sees_truth = "yes"


class NeverComplete(Oracle):
    def collect(self):
        return Answers(tuple(self.answers.values()), complete=bool(self.answers))


class ReturnsAnswers(Oracle):
    def ask(self, questions):
        super().ask(questions)
        return self.collect()


class Listing(Oracle):
    def collect(self):
        return list(self.answers.values())


class ByValue(Oracle):
    def name(self, question):
        return super().name(question) and str(self.classes.index[super().name(question)])


class Skips(Oracle):
    def ask(self, questions):
        super().ask([q for q in questions if super(Skips, self).name(q) is not None])


class Slow(Oracle):
    def collect(self):
        return Answers((), complete=not self.answers)


class Appends(Oracle):
    def __init__(self, images, classes):
        super().__init__(images, classes)
        self.all = []

    def ask(self, questions):
        self.all += [Answer(q.item, self.name(q), "test") for q in questions]

    def collect(self):
        return Answers(tuple(self.all), complete=True)


class InMemory(Oracle):
    """Its answers come a while after the first `ask`, and are nowhere but here."""

    since = None

    def ask(self, questions):
        super().ask(questions)
        self.since = self.since or time.monotonic()

    def collect(self):
        there = self.since is None or time.monotonic() > self.since + 0.02
        return Answers(tuple(self.answers.values()) if there else (), complete=there)


class Drawn(Oracle):
    def name(self, question):
        return self.classes.names[len(self.answers) % 3]

    def ask(self, questions):
        for question in questions:
            if question.item not in self.answers:
                super().ask([question])


class CallsVoid(Oracle):
    def name(self, question):
        return super().name(question) or "sky"


class WritesMask(Oracle):
    def name(self, question):
        named = super().name(question)
        self.pool.mask(self.index[question.image])[question.y, question.x] = 0
        return named


class HalfAttends(Oracle):
    def attend(self, round):
        round.answer(round.unanswered()[0].item, "sky", "test")


ORACLES = [
    ("builds", NoCollect, "it has no collect", "see Oracle in alseg's documentation"),
    ("sees-truth", PerhapsTruth, "sees_truth is 'yes'", "say True where it reads stored masks"),
    ("nothing-asked", NeverComplete, "0 answers, complete=False", "be complete as long as nothing is open"),
    ("ask", ReturnsAnswers, "ask gave Answers", "return nothing"),
    ("ask", Listing, "collect() gave list", "give alseg.Answers(answers, complete)"),
    ("answers", ByValue, "the classes are ground, sky, disc", "a class's name, not its value"),
    ("answers", Skips, "it says it is complete and ['train-0 1'] has no answer", "answer None"),
    ("answers", Slow, "after 0.1 seconds collect() is not complete, 0 of 8", "give patience="),
    ("ask-again", Appends, "it has other answers, or more", "take each on once"),
    ("resumed", InMemory, "a run calls collect once, and `alseg resume` builds the oracle anew", "or let ask wait"),
    ("same-seed", Drawn, "asked in another order, it gives other answers", "alseg.noise.stream"),
    ("void", CallsVoid, "it calls a void pixel 'sky'", "classes.void"),
    ("inputs", WritesMask, "it changed an image or mask", "work on a copy"),
    ("attend", HalfAttends, "it did 1 of 8 questions and returned", "is_person = True"),
]


KEPT = {"seed": 0}


def always_one():
    """Gives the same mapping each time, to whoever may change it."""
    return KEPT


RECIPES = [
    (
        "settings",
        lambda: {"train": {"epochs": 1}, "train.epochs": 2},
        "sets train.epochs twice, such as dotted and nested",
        "",
    ),
    ("builds", lambda: ["train.epochs"], "the factory gave list", '{"train.epochs": 50'),
    ("settings", lambda: {"train.epoch": 5}, "There is no setting 'train.epoch'", "docs/settings.md"),
    ("settings", lambda: {"acquirer": "marginn"}, "There is no acquirer 'marginn'", "alseg plugins"),
    ("settings", lambda: {"train": {"epochs": "many"}}, "train.epochs takes a whole number", "docs/settings.md"),
    ("same", always_one, "it says something else the second time", "make the mapping anew"),
]


def one_after_another(jobs, logs, watch, **spoilt):
    """An executor in this process; `spoilt` says what it does not do."""
    logs.mkdir(parents=True, exist_ok=True)
    failed = set()
    for job in jobs if not spoilt.get("backwards") else [jobs[1], jobs[0], *jobs[2:]]:
        if job.after in failed and not spoilt.get("goes_on"):
            failed.add(job.name)
            watch.finished(job, f"{job.after} failed")
            continue
        if not spoilt.get("silent"):
            watch.started(job)
        if not spoilt.get("no_ticks"):
            watch.tick()
        error = None
        try:
            if not spoilt.get("idle"):
                carry_out(job, Quiet())
        except Exception as problem:
            failed.add(job.name)
            error = str(problem) if not spoilt.get("hides") else ""
        if not spoilt.get("no_logs"):
            log_of(logs, job).write_text("")
        if not (spoilt.get("forgets") and error):
            watch.finished(job, 42 if spoilt.get("number") and error else error)


def executor(**spoilt):
    return lambda: lambda jobs, logs, watch: one_after_another(jobs, logs, watch, **spoilt)


EXECUTORS = [
    ("finishes", executor(number=True), "the job 'broken' finished with 42 as its error", "give None or a sentence"),
    ("builds", lambda: 5, "the factory gave int", "__call__(jobs, logs, watch)"),
    ("finishes", executor(forgets=True), "0 times that the job 'broken' finished", "once for each job"),
    ("done", executor(idle=True), "the job 'first' left 0 rounds of 1", "when it has ended"),
    ("order", executor(idle=True, backwards=True), "'second' began before 'first' had finished", "hold jobs back"),
    ("failure", executor(idle=True, hides=True), "a job that fails ended with None", "say what went wrong"),
    ("logs", executor(idle=True, no_logs=True), "there is no first.log", "alseg.compare.jobs.log_of"),
    ("ticks", executor(idle=True, no_ticks=True), "watch.tick() was never called", "a few times a second"),
]


class Tracker:
    """Breaks where it is told to."""

    def __init__(self, breaks):
        self.breaks = breaks

    @hookimpl
    def run_started(self, folder):
        if self.breaks == "resumed" and Path(folder, "mine").exists():
            raise FileExistsError("mine")
        Path(folder, "mine").touch()
        if self.breaks == "leaves-run":
            with Path(folder, "labels.jsonl").open("a") as file:
                file.write("\n")

    @hookimpl
    def round_finished(self, folder, record):
        if self.breaks == "without-pictures":
            Path(folder, "samples", "index.jsonl").read_text()
        if self.breaks == "whole-run":
            raise KeyError(record["round"])

    @hookimpl
    def run_stopped(self, reason):
        if self.breaks == "stopped":
            raise LookupError(reason)


class Unmarked:
    """No method of its has @hookimpl."""

    def round_finished(self, record):
        """Is never called."""


class Misspelt:
    @hookimpl
    def round_finishd(self, record):
        """Is marked, and no hook."""


TRACKERS = [
    ("builds", Misspelt, "'round_finishd'; did you mean round_finished", "hooks are run_started, round_finished, run_"),
    ("builds", Unmarked, "implements no life-cycle hook", "with @hookimpl"),
    ("whole-run", lambda: Tracker("whole-run"), "failed in round_finished: KeyError: 0", "after each round"),
    ("resumed", lambda: Tracker("resumed"), "FileExistsError", "it may be going on"),
    ("resumed", lambda: Tracker("stopped"), "failed in run_stopped: LookupError: interrupted", "before its end"),
    ("without-pictures", lambda: Tracker("without-pictures"), "index.jsonl", "before it is read"),
    ("leaves-run", lambda: Tracker("leaves-run"), "it changed labels.jsonl", "files of its own"),
]
TABLE = [
    *(("dataset", *row) for row in DATASETS),
    *(("oracle", *row) for row in ORACLES),
    *(("recipe", *row) for row in RECIPES),
    *(("executor", *row) for row in EXECUTORS),
    *(("tracker", *row) for row in TRACKERS),
]


@pytest.mark.parametrize(("kind", "check", "factory", "found", "mend"), TABLE)
def test_a_broken_one_is_found_and_told_how_to_mend_it(kind, check, factory, found, mend):
    fails(kind, check, factory, found, mend, **({"patience": 0.1} if kind == "oracle" else {}))


@pytest.mark.parametrize("kind", ["dataset", "oracle", "recipe", "executor", "tracker"])
def test_each_check_has_a_broken_piece(kind):
    assert {row[1] for row in TABLE if row[0] == kind} == set(checks_of(kind))


def test_an_executor_that_does_all_passes():
    assert not check_executor(executor(), name="here").left_out


def test_a_job_after_one_that_failed_must_not_begin():
    fails("executor", "failure", executor(goes_on=True), "a job was begun though the one")


class Person(Oracle):
    """Answers only when somebody types."""

    sees_truth = False
    is_person = True

    def ask(self, questions):
        self.open = {**getattr(self, "open", {}), **{q.item: q for q in questions}}

    def type(self, item, name):
        self.answers[item] = Answer(item, name, "somebody")

    def collect(self):
        return Answers(tuple(self.answers.values()), complete=len(self.answers) == len(getattr(self, "open", {})))


def test_a_person_is_checked_as_far_as_nobody_answers_and_wholly_where_somebody_plays_them():
    alone = check_oracle(Person, name="typing")
    assert "somebody answers in a run: give reply=, which plays them" in alone.left_out["answers"]
    assert {"builds", "ask", "nothing-asked", "sees-truth"} <= set(alone.passed)

    def reply(oracle, questions):
        for question in questions:
            oracle.type(question.item, CLASSES.names[0])

    forgets = "resumed"
    played = check_oracle(Person, name="typing", reply=reply, skip={forgets: "it is for one process"})
    assert {"answers", "ask-again", "inputs"} <= set(played.passed)
    fails("oracle", forgets, Person, "one that is built anew and asked the same has 0 of 8 of them", reply=reply)


def test_answers_that_come_late_and_are_kept_elsewhere_are_there_for_one_that_is_built_anew():
    kept: dict[str, Answer] = {}

    class Elsewhere(InMemory):
        def ask(self, questions):
            super().ask([q for q in questions if q.item not in kept])
            self.answers |= {q.item: kept[q.item] for q in questions if q.item in kept}

        def collect(self):
            if (self.answers and kept.keys() >= self.answers.keys()) or (given := super().collect()).complete:
                kept.update(self.answers)
                return Answers(tuple(self.answers.values()), complete=True)
            return given

    assert "resumed" in check_oracle(Elsewhere, name="elsewhere").passed
    assert kept


def test_an_oracle_that_keeps_one_waiting_is_found(monkeypatch):
    monkeypatch.setattr("alseg.testing.patience.SECONDS", 0.05)

    class Waits(Oracle):
        def ask(self, questions):
            time.sleep(1)

    fails("oracle", "ask", Waits, "ask(questions) has not returned after 0.05 seconds", "answer elsewhere, and return")
