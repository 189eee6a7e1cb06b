"""What trackers hear beside an undisturbed run: other trackers on the way, a kill, a comparison."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import SMALL, one_sentence

import alseg
from alseg.plugins import load_plugins
from alseg.telling import OWED
from alseg.testing.tiny import NAME, PLUGIN

OF_RUNS = ["--dataset", "shapes", "-o", "dataset.train_images=3", "-o", "dataset.val_images=2"]
OF_RUNS += [*SMALL, "--first-pixels", "2", "--pixels-per-round", "1"]
WORDS = ["run", *OF_RUNS]
LINES = """\
import os, signal
from pathlib import Path
from alseg import hookimpl

class Lines:
    def __init__(self, file, word):
        self.file, self.word = Path(file), word

    @hookimpl
    def run_started(self, folder, settings):
        self.say(f"started {Path(folder).name} {settings['rounds']}")

    @hookimpl
    def round_finished(self, record):
        self.say(f"round {record['round']}")

    @hookimpl
    def run_finished(self, records):
        self.say(f"finished {len(records)}")

    @hookimpl
    def run_stopped(self, folder, reason, message):
        self.say(f"stopped {reason}: {message}")

    def say(self, line):
        with self.file.open("a") as file:
            file.write(self.word + line + "\\n")
        order = self.file.with_suffix(".order")
        if order.exists() and (what := order.read_text().split())[1] in line:
            order.unlink()
            if what[0] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt if what[0] == "stop" else RuntimeError("no server")

def NAME(file: str, word: str = ""):
    return Lines(file, word)

@hookimpl
def register_trackers(register):
    register("NAME", NAME)
"""
FAILING = """
class Failing:
    def __init__(self, file):
        self.file = Path(file)

    def __call__(self, batch):
        if self.file.exists():
            raise RuntimeError("no utility")
        return batch.noise("failing").float()

def failing(file: str):
    return Failing(file)

@hookimpl
def register_acquirers(register):
    register("failing", failing)
"""


@pytest.fixture
def lines(tmp_path):
    """Write a plugin with a tracker and its file; what a tracker has heard since the last look."""

    def made(name: str = "lines", more: str = "") -> tuple[Path, Path]:
        plugin = tmp_path / f"plugin_{name}.py"
        plugin.write_text(LINES.replace("NAME", name) + more)
        return plugin, tmp_path / f"{name}.txt"

    return made


def heard(file: Path) -> list[str]:
    said = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return said


def test_a_run_goes_on_with_other_trackers(cli, lines, tmp_path):
    (first, one), (second, two), run = lines("first"), lines("second_one"), tmp_path / "run"
    plugins = ["--plugin", first, "--plugin", second]
    words = [*plugins, *WORDS, "--rounds", 1, "--trackers", "first", "-o", f"first.file={one}", "--out", run]
    assert cli(*words, "-o", "first.word=a-").code == 0
    assert heard(one) == ["a-started run 1", "a-round 0", "a-finished 1"]
    outcome = cli(
        *plugins, "resume", run, "--rounds", 2, "--trackers", "second_one,first", "-o", f"second_one.file={two}"
    )
    assert outcome.code == 0, outcome.err
    assert heard(one) == ["a-started run 2", "a-round 1", "a-finished 2"], "what stays keeps its options"
    assert heard(two) == ["started run 2", "round 1", "finished 2"]
    stored = tomllib.loads((run / "run.toml").read_text())
    assert stored["trackers"] == ["second_one", "first"]
    assert stored["second_one"] == {"file": str(two), "word": ""}
    # without the plugins: they can be left out, and are left out from then on
    refused = cli("resume", run, "--rounds", 3)
    assert refused.code == 2
    assert "no tracker 'second_one'" in refused.err
    assert "--plugin" in refused.err
    assert cli("resume", run, "--rounds", 3, "--trackers", "none").code == 0
    stored = tomllib.loads((run / "run.toml").read_text())
    assert not {"trackers", "first", "second_one"} & stored.keys()
    assert cli("resume", run, "--rounds", 4).code == 0
    assert heard(one) == heard(two) == []


def test_a_complete_run_is_told_to_a_tracker_that_comes_late(cli, lines, tmp_path):
    (plugin, file), run = lines(), tmp_path / "run"
    assert cli(*WORDS, "--rounds", 1, "--out", run).code == 0
    words = ("--plugin", plugin, "resume", run)
    assert cli(*words, "-o", "trackers=lines", "-o", f"lines.file={file}").code == 0
    assert heard(file) == ["started run 1", "finished 1"]
    assert cli(*words).code == 0
    assert heard(file) == []
    assert cli(*words, "-o", "lines.word=b-").code == 0
    assert heard(file) == ["b-started run 1", "b-finished 1"]
    before = (run / "run.toml").read_bytes()
    one_sentence(cli(*words, "-o", "train.epochs=3"), "'train.epochs' is no option of a tracker of the run")
    one_sentence(cli(*words, "-o", "lines.wrod=b"), "tracker 'lines' has no option 'wrod'; did you mean word")
    one_sentence(cli(*words, "--trackers", "linse"), "no tracker 'linse'; did you mean lines")
    one_sentence(cli(*words, "--trackers", "lines,lines"), "given twice")
    one_sentence(cli(*words, "--trackers", "none", "-o", "lines.word=b"), "it has no tracker")
    assert (run / "run.toml").read_bytes() == before
    assert heard(file) == []


def test_the_same_from_python(lines, tmp_path):
    (plugin, file), run = lines(), tmp_path / "run"
    registry = load_plugins([plugin, PLUGIN])
    settings = {"dataset": NAME, "model": NAME, "recipe": NAME, "rounds": 1, "budget": 9}
    alseg.run(settings, out=run, registry=registry)
    options = {"lines.file": str(file)}
    alseg.resume(run, rounds=2, trackers=["lines"], tracker_options=options, registry=registry)
    assert heard(file) == ["started run 2", "round 1", "finished 2"]
    alseg.resume(run, rounds=3, trackers=(), registry=registry)
    assert heard(file) == []


def test_a_library_that_is_missing_can_be_done_without(cli, tmp_path, monkeypatch):
    run, out = tmp_path / "run", tmp_path / "comparison"
    assert cli(*WORDS, "--rounds", 1, "--out", run).code == 0
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "alseg_mlflow.tracker", raising=False)
    words, said = ("resume", run, "--rounds", 2), ("The tracker 'mlflow' of alseg", "pip install 'alseg[mlflow]'")
    one_sentence(cli(*words, "--trackers", "mlflow"), *said, "--trackers none` goes on without trackers")
    assert cli(*words, "--trackers", "none").code == 0
    words = ("compare", *OF_RUNS, "--acquirers", "margin", "--rounds", 1, "--out", out)
    one_sentence(cli(*words, "--trackers", "mlflow"), *said)
    assert not out.exists(), "it was found before anything was begun"


def test_a_comparison_says_that_complete_runs_do_not_hear_of_other_trackers(cli, lines, tmp_path):
    (plugin, file), out = lines(), tmp_path / "comparison"
    grid = ["compare", "--dataset", NAME, "--model", NAME, "--acquirers", "margin", "--rounds", 1]
    words = ["--plugin", PLUGIN, "--plugin", plugin, *grid, "--out", out]
    tracked = ["--trackers", "lines", "-o", f"lines.file={file}"]
    assert "left alone" not in cli(*words).out
    outcome = cli(*words, *tracked)
    assert outcome.code == 0, outcome.err
    (said,) = [line for line in outcome.out.splitlines() if "left alone" in line]
    assert said.startswith("2 runs were complete and left alone; ")
    command = shlex.split(said.split("`")[1])[1:]
    assert cli("--plugin", PLUGIN, "--plugin", plugin, *command).code == 0
    assert heard(file)[-1] == "finished 1"
    assert "One run was complete" in cli(*words, *tracked).out, "the other has them now"


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_end_was_told(cli, lines, tmp_path):
    (plugin, file), run = lines(), tmp_path / "run"
    file.with_suffix(".order").write_text("kill finished")
    words = ["--plugin", plugin, *WORDS, "--rounds", 1, "--trackers", "lines", "-o", f"lines.file={file}", "--out", run]
    process = subprocess.run([sys.executable, "-m", "alseg", *map(str, words)], capture_output=True, timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert heard(file) == ["started run 1", "round 0", "finished 1"]
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 1
    told_once(cli, plugin, file, run)


def test_a_run_that_was_stopped_before_its_end_was_told(cli, lines, tmp_path):
    (plugin, file), run = lines(), tmp_path / "run"
    file.with_suffix(".order").write_text("stop finished")
    words = ["--plugin", plugin, *WORDS, "--rounds", 1, "--trackers", "lines", "-o", f"lines.file={file}", "--out", run]
    assert cli(*words).code == 130
    assert heard(file)[1:] == ["round 0", "finished 1", "stopped interrupted: The run was interrupted."]
    told_once(cli, plugin, file, run)


MEDDLES = """
from pathlib import Path
from alseg import UserMistake, hookimpl, resume

class Quiet:
    @hookimpl
    def run_started(self, folder):
        pass

def meddles(order: str, word: str = ""):
    if Path(order).exists():
        run = Path(order).read_text()
        Path(order).unlink()
        try:  # as another process might at this moment
            resume(run, rounds=3, trackers=())
        except UserMistake as error:
            Path(order).write_text(str(error))
    return Quiet()

@hookimpl
def register_trackers(register):
    register("meddles", meddles)
"""


def test_settings_are_read_and_written_by_one_process_at_a_time(cli, tmp_path):
    (plugin := tmp_path / "meddles.py").write_text(MEDDLES)
    run, order = tmp_path / "run", tmp_path / "order"
    words = ["--trackers", "meddles", "-o", f"meddles.order={order}"]
    assert cli("--plugin", plugin, *WORDS, "--rounds", 1, *words, "--out", run).code == 0
    order.write_text(str(run))
    assert cli("--plugin", plugin, "resume", run, "--rounds", 2, "-o", "meddles.word=a").code == 0
    assert f"The run {run} is being written by process " in order.read_text()
    stored = tomllib.loads((run / "run.toml").read_text())
    assert (stored["rounds"], stored["meddles"]["word"]) == (2, "a")
    assert len((run / "rounds.jsonl").read_text().splitlines()) == 2


WATCHES = """
from pathlib import Path
from alseg import hookimpl

@hookimpl
def run_finished(folder, records):
    with Path(folder).with_name("watched.txt").open("a") as file:
        file.write(f"finished {len(records)}\\n")
"""


def test_only_a_tracker_that_failed_at_the_end_is_told_it_again(cli, lines, tmp_path):
    (first, one), (second, two), run, other = lines("first"), lines("second"), tmp_path / "run", tmp_path / "other"
    (watch := tmp_path / "watch.py").write_text(WATCHES)
    order, plugins = two.with_suffix(".order"), ["--plugin", first, "--plugin", second, "--plugin", watch]
    trackers = ["--trackers", "first,second", "-o", f"first.file={one}", "-o", f"second.file={two}"]
    order.write_text("fail finished")
    outcome = cli(*plugins, *WORDS, "--rounds", 1, *trackers, "--out", run)
    assert outcome.code == 0
    assert "The tracker 'second' of" in outcome.err
    assert "failed in run_finished: RuntimeError: no server" in outcome.err
    assert outcome.err.splitlines()[-1] == (
        f"`alseg {' '.join(map(str, plugins))} resume {run}` tells the tracker 'second' of the end again."
    )
    assert heard(one) == heard(two) == ["started run 1", "round 0", "finished 1"]
    order.write_text("fail finished")
    assert cli(*plugins, "resume", run).code == 0
    assert heard(two) == ["started run 1", "finished 1"]
    # wherever its plugin lies now
    other.mkdir()
    plugins[3] = second.rename(other / second.name)
    for told in (["started run 1", "finished 1"], []):
        assert cli(*plugins, "resume", run).code == 0
        assert heard(two) == told
    assert heard(one) == [], "it heard the end already"
    assert heard(tmp_path / "watched.txt") == ["finished 1"], "and so did the plugin"
    assert not (run / OWED).exists()


def test_a_tracker_that_was_owed_the_end_may_be_left_out(cli, lines, tmp_path):
    (first, one), (second, two), run = lines("first"), lines("second"), tmp_path / "run"
    plugins = ["--plugin", first, "--plugin", second]
    for file in (one, two):
        file.with_suffix(".order").write_text("fail finished")
    trackers = ["--trackers", "first,second", "-o", f"first.file={one}", "-o", f"second.file={two}"]
    assert cli(*plugins, *WORDS, "--rounds", 1, *trackers, "--out", run).code == 0
    assert (heard(one), heard(two)) == (["started run 1", "round 0", "finished 1"],) * 2
    assert cli(*plugins, "resume", run, "--trackers", "first").code == 0
    assert (heard(one), heard(two)) == (["started run 1", "finished 1"], [])
    assert cli(*plugins, "resume", run, "--trackers", "first,second", "-o", f"second.file={two}").code == 0
    assert (heard(one), heard(two)) == ([], ["started run 1", "finished 1"]), "the one that is new"


def told_once(cli, plugin: Path, file: Path, run: Path) -> None:
    """A complete run hears its end when it is resumed, and not a second time."""
    for told in (["started run 1", "finished 1"], []):
        assert cli("--plugin", plugin, "resume", run).code == 0
        assert heard(file) == told
