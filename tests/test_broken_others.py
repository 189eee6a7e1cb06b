"""Each check of datasets, oracles, recipes, executors and trackers finds what it is for, and says how to mend it."""

from __future__ import annotations

import contextlib
import itertools
import runpy
import time
from pathlib import Path

import numpy as np
import pytest
from test_broken_acquirers import fails
from test_broken_oracles import ORACLES

from alseg import hookimpl
from alseg.compare.jobs import carry_out, log_of
from alseg.progress import Quiet
from alseg.testing import check_executor, checks_of, executors
from alseg.testing.tiny_images import TinyDataset, TinyImages
from alseg.values import Classes

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


class Numbered(TinyImages):
    def stamp(self, i):
        return i


class Timed(TinyImages):
    def stamp(self, i):
        return str(time.perf_counter())


class WithLambda(Data):
    def __init__(self):
        super().__init__()
        self.reader = lambda path: path


DATASETS = [
    ("builds", lambda: object(), "it has no classes, splits, recipe, images", "see Dataset in alseg's documentation"),
    ("classes", lambda: Data(classes=("a", "b")), "classes is tuple", "give an alseg.Classes(names, void)"),
    ("classes", lambda: Data(classes=Classes(("a", "a"), 255)), "each with a name of its own", ""),
    ("classes", lambda: Data(classes=Classes(("a", "b"), 1)), "void is 1, which is the class b", ""),
    ("classes", lambda: Data(classes=Classes(("a", "b"), 2**32 - 1)), "void 4294967295", "32 bits with a sign"),
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
    ("stamps", lambda: Data(Numbered), "the stamp of train-0 in train is int", "give a string, such as"),
    ("stamps", lambda: Data(Timed), "opened again, the image train-0 of train has another stamp", "nothing of this"),
    (
        "recipe",
        lambda: Data(recipe="camvit"),
        "its recipe 'camvit' is not registered; did you mean camvid",
        "register",
    ),
    ("published", lambda: Data(published={"train": "many"}), "published is {'train': 'many'}", '{"train": 367}'),
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
    ("settings", lambda: {"recipe": "shapes"}, "it names a recipe", "leave it out"),
    ("settings", lambda: {"pool_pixels_per_round": 9, "budget": 5}, "counts over the whole pool", ""),
    ("settings", lambda: {"dataset": "shapes", "dataset.side": 5}, "dataset.side takes a whole number from 32", ""),
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
            with contextlib.suppress(*spoilt.get("swallows", ())):
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
    (
        "interrupted",
        executor(idle=True, swallows=[KeyboardInterrupt]),
        "it kept a KeyboardInterrupt of watch.tick() to itself",
        "let it through",
    ),
]


class Tracker:
    """Breaks where it is told to."""

    def __init__(self, breaks, file="labels.jsonl"):
        self.breaks, self.file = breaks, file

    @hookimpl
    def run_started(self, folder, settings):
        if self.breaks == "settings":
            settings["train"]["epochs"] = 0
        if self.breaks == "resumed" and Path(folder, "mine").exists():
            raise FileExistsError("mine")
        Path(folder, "mine").touch()
        if self.breaks == "leaves-run":
            Path(folder, self.file).write_text("")

    @hookimpl
    def round_finished(self, folder, record):
        if self.breaks == "without-pictures":
            Path(folder, "samples", "index.jsonl").read_text()
        if self.breaks == "whole-run":
            raise KeyError(record["round"])
        if self.breaks == "record":
            del record["round"]

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
    ("inputs", lambda: Tracker("settings"), "its run_started changed what it was given", "a copy"),
    ("inputs", lambda: Tracker("record"), "its round_finished changed what it was given", "a copy"),
    ("without-pictures", lambda: Tracker("without-pictures"), "index.jsonl", "before it is read"),
    ("leaves-run", lambda: Tracker("leaves-run"), "it changed labels.jsonl", "files of its own"),
    ("leaves-run", lambda: Tracker("leaves-run", "rounds/00/questions.jsonl"), "it changed rounds/00/", "of its own"),
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


def test_an_interrupted_executor_does_not_wait_for_the_job(monkeypatch):
    """The one that `alseg plugins new` writes, which gives the job to a process and reads from it in a thread."""
    template = Path(executors.__file__).parents[1] / "scaffold/templates/executor/src/my_piece/__init__.py"
    my_piece = runpy.run_path(str(template))["my_piece"]
    others = dict.fromkeys(set(checks_of("executor")) - {"builds", "finishes", "interrupted"}, "of another test")
    monkeypatch.setattr(executors.OfExecutor, "told", executors.Told(ticks=1))
    monkeypatch.setattr(executors.OfExecutor, "jobs", [])
    assert "interrupted" in check_executor(my_piece, skip=others).passed
