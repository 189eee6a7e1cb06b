# ruff: noqa: F811 (the fixture `lines` is imported)
"""How trackers are told of early ends, of waiting, and of each other."""

from __future__ import annotations

import json
import os
import shutil

from conftest import one_sentence
from test_tracked_lives import FAILING, LINES, WORDS, heard, lines  # noqa: F401

from alseg.compare.groups import identity
from alseg.compare.jobs import carry_out, plan
from alseg.compare.study import Grid, cells
from alseg.plugins import load_plugins
from alseg.progress import Quiet
from alseg.report.reading import RunView
from alseg.telling import OWED
from alseg.testing.tiny import NAME, PLUGIN


def test_an_early_end_is_told(cli, lines, tmp_path):
    (plugin, file), run, order = lines(more=FAILING), tmp_path / "run", tmp_path / "fail"
    words = ["--plugin", plugin, *WORDS, "--rounds", 2, "--trackers", "lines", "-o", f"lines.file={file}"]
    words += ["--acquirer", "failing", "-o", f"acquirer.file={order}", "--out", run]
    file.with_suffix(".order").write_text("stop round")
    assert cli(*words).code == 130
    assert heard(file) == ["started run 2", "round 0", "stopped interrupted: The run was interrupted."]
    order.touch()
    outcome = cli("--plugin", plugin, "resume", run)
    assert outcome.code == 1
    first, last = heard(file)
    assert first == "started run 2"
    assert last.startswith("stopped failed: ")
    assert "RuntimeError: no utility" in last
    order.unlink()
    assert cli("--plugin", plugin, "resume", run).code == 0
    assert heard(file) == ["started run 2", "round 1", "finished 2"]


def test_waiting_for_answers_is_told_with_what_was_asked(cli, lines, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (plugin, file), run = lines(), tmp_path / "run"
    words = ["--plugin", plugin, *WORDS, "--rounds", 1, "--trackers", "lines,tensorboard", "-o", f"lines.file={file}"]
    assert cli(*words, "--oracle", "human", "--no-wait", "--out", run).code == 3
    first, last = heard(file)
    assert first == "started run 1"
    assert last.startswith("stopped waiting: Round 0 waits for 6 of 6 answers.")
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    (asked,) = events.Tensors("queries/text_summary")
    assert asked.tensor_proto.string_val[0].decode().count("train-") == 6


def test_a_comparison_that_only_asks_tells_its_trackers(lines, tmp_path):
    (plugin, file), out = lines(), tmp_path / "comparison"
    registry, grid = load_plugins([plugin, PLUGIN]), Grid({"acquirer": ["margin"]})
    settings = {"dataset": NAME, "model": NAME, "recipe": NAME, "rounds": 2}

    def done(ask_only: bool, **more: str) -> list[str]:
        flags = {name.replace("__", "."): value for name, value in more.items()}
        made = cells(registry, grid, settings, flags)
        jobs = plan(made, out, ask_only=ask_only, plugins=registry.files)
        for job in jobs:
            carry_out(job, Quiet())
        return [job.name for job in jobs]

    (_, *runs) = done(True, trackers="lines", lines__file=str(file))
    asked = "stopped asked: Round 1 was asked, and --ask-only trains no further."
    said = heard(file)
    assert said[1:3] == ["round 0", "finished 1"], "the first round is a run of its own"
    assert said[3:] == [line for name in runs for line in (f"started {name} 2", asked)]
    # it goes on without trackers, to the end
    assert done(False) == runs
    assert heard(file) == []
    # a complete run that was killed before its end was told is taken up for that
    assert done(False) == []
    (out / "runs" / runs[0] / OWED).touch()
    assert done(False, trackers="lines", lines__file=str(file)) == runs[:1]
    assert heard(file) == [f"started {runs[0]} 2", "finished 2"]
    assert done(False, trackers="lines", lines__file=str(file)) == []


def test_two_trackers_of_one_name(cli, tmp_path, lines):
    plugins = []
    for folder in ("a-b", "c"):
        path = tmp_path / folder / "piece.py"
        path.parent.mkdir()
        path.write_text(LINES.replace("NAME", "lines"))
        plugins.append(path)
    flags = [word for path in plugins for word in ("--plugin", path)]
    names = [f"{path}:lines" for path in plugins]
    files = [path.with_name("heard.txt") for path in plugins]
    options = [word for name, file in zip(names, files, strict=True) for word in ("-o", f"{name}.file={file}")]
    run = tmp_path / "run"
    outcome = cli(*flags, *WORDS, "--rounds", 1, "--trackers", ",".join(names), *options, "--out", run)
    assert outcome.code == 0, outcome.err
    assert [heard(file) for file in files] == [["started run 1", "round 0", "finished 1"]] * 2
    assert cli(*flags, "resume", run, "--rounds", 2).code == 0
    assert [heard(file) for file in files] == [["started run 2", "round 1", "finished 2"]] * 2
    # they are no difference between runs
    assert cli(*WORDS, "--rounds", 2, "--out", tmp_path / "plain").code == 0
    assert identity(RunView.read(run)) == identity(RunView.read(tmp_path / "plain"))


def test_one_tracker_by_two_names_is_two(cli, tmp_path, lines):
    plugin, file = lines()
    whole = f"{plugin}:lines"
    words = ["--plugin", plugin, *WORDS, "--rounds", 1, "-o", f"{whole}.file={file}"]
    options = ["--trackers", f"lines,{whole}", "-o", f"lines.file={file}", "-o", "lines.word=a-"]
    assert cli(*words, *options, "--out", tmp_path / "run").code == 0
    assert sorted(heard(file)) == sorted(
        f"{word}{line}" for line in ("started run 1", "round 0", "finished 1") for word in ("", "a-")
    )
    outcome = cli(*words, "--trackers", whole, "-o", "lines.word=b", "--out", tmp_path / "other")
    one_sentence(outcome, f"The tracker 'lines' is taken as {whole!r}: write its options -o {whole}.OPTION=VALUE")
    outcome = cli("--plugin", plugin, *WORDS, "--trackers", whole, "--out", tmp_path / "other")
    one_sentence(outcome, f"needs -o {whole}.file=...")


def test_an_mlflow_run_ends_as_the_run_does(cli, lines, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    (plugin, file), run, order = lines(more=FAILING), tmp_path / "run", tmp_path / "fail"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = ["--plugin", plugin, *WORDS, "--rounds", 2, "--trackers", "mlflow,lines", "-o", f"lines.file={file}"]
    words += ["-o", f"mlflow.uri={uri}", "--acquirer", "failing", "-o", f"acquirer.file={order}", "--out", run]
    file.with_suffix(".order").write_text("stop round")
    assert cli(*words).code == 130

    def state() -> tuple[str, str, str]:
        number = json.loads((run / "mlflow.json").read_text())["runs"][0]
        found = MlflowClient(uri).get_run(number)
        return number, found.info.status, found.data.tags.get("alseg.stopped", "").partition(":")[0]

    number, *ended = state()
    assert ended == ["KILLED", "interrupted"]
    order.touch()
    assert cli("--plugin", plugin, "resume", run).code == 1
    assert state() == (number, "FAILED", "failed")
    order.unlink()
    assert cli("--plugin", plugin, "resume", run).code == 0
    assert state() == (number, "FINISHED", "")


def test_a_run_whose_trackers_plugin_is_gone_says_how_to_do_without(cli, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from alseg import hookimpl\n\nclass Mine:\n    @hookimpl\n    def run_started(self, folder):\n        pass\n\n"
        "@hookimpl\ndef register_trackers(register):\n    register('mine', Mine)\n"
    )
    run = tmp_path / "run"
    assert cli("--plugin", path, *WORDS, "--rounds", 2, "--trackers", "mine", "--out", run).code == 0
    outcome = cli("resume", run, "--rounds", 3)
    assert outcome.code == 2
    assert "There is no tracker 'mine'" in outcome.err
    assert f"It was started with --plugin {path}: `alseg --plugin {path} resume {run}` goes on." in outcome.err
    assert f"`alseg resume {run} --trackers none` goes on without trackers." in outcome.err
    assert cli("resume", run, "--rounds", 3, "--trackers", "none").code == 0


def test_mlflow_leaves_neither_settings_nor_a_file_for_each_database(alseg_tiny_run, tmp_path, monkeypatch):
    from alseg_mlflow import tracker

    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracker.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    before, seen, patience = dict(os.environ), [], tracker.IMPATIENT.items()
    monkeypatch.setattr(tracker.MLflow, "_send", lambda *_: seen.append(patience <= os.environ.items()))
    for name in ("one", "two"):
        run = shutil.copytree(alseg_tiny_run, tmp_path / name)
        tracker.MLflow(f"sqlite:///{name}.db", "tidy").run_started(folder=str(run), settings={})
    assert seen == [True] * 4
    assert dict(os.environ) == before
    assert len(list((tmp_path / "tmp").iterdir())) == 1


DATACLASS = """\
from dataclasses import dataclass
from pathlib import Path
from alseg import hookimpl

@dataclass
class Kept:
    folder: str = ""

    @hookimpl
    def run_started(self, folder):
        self.folder = folder

    @hookimpl
    def round_finished(self, record):
        (Path(self.folder) / f"round-{record['round']}").touch()

@hookimpl
def register_trackers(register):
    register("one", Kept)
    register("two", Kept)
"""


def test_a_tracker_may_be_a_dataclass(cli, tmp_path):
    (tmp_path / "kept.py").write_text(DATACLASS)
    run, words = tmp_path / "run", ["--plugin", tmp_path / "kept.py", "--plugin", PLUGIN]
    tiny = ["--dataset", NAME, "--model", NAME, "--recipe", NAME, "--rounds", 1, "--trackers", "one,two"]
    outcome = cli(*words, "run", *tiny, "--out", run)
    assert outcome.code == 0, outcome.err
    assert "failed" not in outcome.err
    assert (run / "round-0").exists()
    assert cli(*words, "resume", run, "--rounds", 2).code == 0
    assert (run / "round-1").exists()


def test_a_tracker_called_as_a_setting_is_taken_by_its_whole_name(cli, tmp_path):
    (tmp_path / "kept.py").write_text(DATACLASS.replace('"one"', '"seed"'))
    words = ["--plugin", tmp_path / "kept.py", "--plugin", PLUGIN, "run", "--rounds", 1]
    words += ["--dataset", NAME, "--model", NAME, "--recipe", NAME, "--out", tmp_path / "run", "--trackers"]
    one_sentence(cli(*words, "seed"), "The tracker 'seed' has the name of a setting: write kept:seed.")
    assert cli(*words, "kept:seed").code == 0
