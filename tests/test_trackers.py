"""Trackers: what a run tells TensorBoard, MLflow and a stranger's tracker, also over an interruption."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SMALL, one_sentence
from PIL import Image

from alseg.compare.groups import identity
from alseg.config import resolve
from alseg.report.reading import RunView
from alseg.store import RunFolder
from alseg.tracking import metrics_of, parameters_of, query_pictures, questions_of
from alseg.values import Question

LIFE_CYCLE = ["run_started", "round_finished", "run_finished"]
WORDS = ["run", "--dataset", "shapes", "-o", "dataset.train_images=4", "-o", "dataset.val_images=2"]
WORDS += [*SMALL, "-o", "report=true", "--first-pixels", "3", "--pixels-per-round", "3"]


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A run of one round that went on to two, with both trackers; and MLflow's address."""
    from alseg.cli.app import run_cli

    place = tmp_path_factory.mktemp("tracked")
    run, uri = place / "run", f"sqlite:///{place}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)  # where MLflow puts the artifacts of a database that is a file
        trackers = ["-o", "trackers=tensorboard,mlflow", "-o", f"mlflow.uri={uri}", "-o", "mlflow.experiment=pixels"]
        assert run_cli([*WORDS, *trackers, "--rounds", "1", "--out", str(run)]) == 0
        assert run_cli(["resume", str(run), "--rounds", "2"]) == 0
    return run, uri


def test_tensorboard_has_metrics_queries_and_figures(tracked):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = tracked
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0}).Reload()
    records = records_of(run)
    for name in ("miou", "loss", "labelled_pixels", "iou/ground"):
        wanted = [(record["round"], metrics_of(record)[name]) for record in records if name in metrics_of(record)]
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in wanted]
        np.testing.assert_allclose([v for _, v in found], [v for _, v in wanted], rtol=1e-6)
    tags = events.Tags()
    assert {"figures/learning-curve", "queries/train-000", "prediction/00", "utility/00"} <= set(tags["images"])
    assert [event.step for event in events.Images("queries/train-000")] == [0, 1]
    histogram = events.Histograms("queries/utility")[0]
    utilities = [question["utility"] for question in questions_of(run, 1)]
    assert (histogram.step, histogram.histogram_value.num) == (1, 12)
    assert histogram.histogram_value.sum == pytest.approx(sum(utilities))
    text = events.Tensors("queries/text_summary")[1].tensor_proto.string_val[0].decode()
    assert text.count("\n") == 13
    assert "train-003" in text
    assert "train.epochs | 1" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()


def test_mlflow_has_one_run_for_both_parts(tracked):
    from mlflow import MlflowClient

    run, uri = tracked
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("pixels")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["train.epochs"] == "1"
    assert found.data.params["rounds"] == "1"  # a parameter keeps its first value
    history = client.get_metric_history(found.info.run_id, "miou")
    assert {each.step: each.value for each in history} == {
        r["round"]: pytest.approx(r["miou"]) for r in records_of(run)
    }
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    for round in (0, 1):
        kept = artifacts / "rounds" / f"{round:02}" / "questions.jsonl"
        assert kept.read_bytes() == (run / "rounds" / f"{round:02}" / "questions.jsonl").read_bytes()
    assert (artifacts / "rounds/01/queries-00.png").exists()
    assert (artifacts / "figures/learning-curve.png").exists()
    assert "rounds = 2" in (artifacts / "run.toml").read_text()


@pytest.fixture
def mlflow_here(tmp_path, monkeypatch):
    """A new database and its client; artifacts lie beside it."""
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return uri, lambda: MlflowClient(uri)


def told(tracker: Any, run: Path) -> None:
    tracker.run_started(folder=str(run), settings={})


def number_of(run: Path) -> str:
    """The MLflow run that a run went on with last."""
    return json.loads((run / "mlflow.json").read_text())["runs"][0]


def untold(tracked: tuple[Path, str], run: Path) -> Path:
    """A copy of the tracked run of which no tracker has heard."""
    shutil.copytree(tracked[0], run, ignore=shutil.ignore_patterns("tensorboard", "mlflow.json"))
    return run


def test_rounds_that_a_kill_kept_from_a_tracker_are_sent_later(tracked, tmp_path, mlflow_here):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from alseg_mlflow.tracker import MLflow
    from alseg_tensorboard.tracker import TensorBoard

    uri, client = mlflow_here
    run = untold(tracked, Path("run"))  # seen from tmp_path, as folders are on a command line
    for _ in range(2):  # nothing twice
        told(MLflow(uri, "late"), run)
        told(TensorBoard(None), run)
    number = number_of(run)
    assert [metric.step for metric in client().get_metric_history(number, "labelled_pixels")] == [0, 1]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("labelled_pixels")] == [0, 1]
    shutil.copytree(run, tmp_path / "copy")  # as a comparison's runs begin with one first round
    told(MLflow(uri, "late"), tmp_path / "copy")
    assert number_of(tmp_path / "copy") != number
    client().delete_run(number)
    told(MLflow(uri, "late"), run)
    assert number_of(run) != number


def test_a_run_that_was_moved_goes_on_with_its_mlflow_run(tracked, tmp_path, mlflow_here):
    from alseg_mlflow.tracker import MLflow

    uri, client = mlflow_here
    first, moved = untold(tracked, tmp_path / "run"), tmp_path / "moved"
    told(MLflow(uri, "moved"), first)
    number = number_of(first)
    first.rename(moved)
    told(MLflow(uri, "moved"), untold(tracked, first))  # another now lies where it was
    for _ in range(2):
        told(MLflow(uri, "moved"), moved)
        assert number_of(moved) == number != number_of(first)
    assert [metric.step for metric in client().get_metric_history(number, "labelled_pixels")] == [0, 1]


def test_each_server_and_experiment_has_one_mlflow_run(tracked, tmp_path, mlflow_here):
    from mlflow import MlflowClient

    from alseg_mlflow.tracker import MLflow

    uri, _ = mlflow_here
    run, other = untold(tracked, tmp_path / "run"), uri.replace("mlflow.db", "other.db")
    places = [(uri, "one"), (other, "one"), (uri, "two")]
    numbers = []
    for place in [*places, *places]:
        told(MLflow(*place), run)
        numbers.append(number_of(run))
    assert numbers[:3] == numbers[3:]
    assert len(set(numbers)) == 3
    for (server, experiment), number in zip(places, numbers, strict=False):
        client = MlflowClient(server)
        (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert found.info.run_id == number
        assert [metric.step for metric in client.get_metric_history(number, "labelled_pixels")] == [0, 1]


def test_classes_of_any_name_and_number_reach_mlflow(tracked, tmp_path, mlflow_here):
    from alseg_mlflow.tracker import MLflow, names_of

    uri, client = mlflow_here
    run, odd = untold(tracked, tmp_path / "run"), ["c?d", "c_d", "c:d", "n", "n/a", "./b", ".", "/", "b ", "x" * 300]
    names = [*odd, *(f"class {i}" for i in range(1200))]
    tracker, record = MLflow(uri, "odd"), records_of(tracked[0])[1]
    told(tracker, run)
    for round, skipped in ((2, "c:d"), (3, None)):
        iou = {name: None if name == skipped else i / 2000 for i, name in enumerate(names)}
        tracker.round_finished(folder=str(run), record={**record, "round": round, "iou": iou})
    taken = names_of([f"iou/{name}" for name in names])
    found = client().get_run(number_of(run)).data.metrics
    assert [found[taken[f"iou/{name}"]] for name in names] == [i / 2000 for i in range(len(names))]
    assert (taken["iou/c_d"], taken["iou/c:d"], taken["iou/c?d"]) == ("iou/c_d", "iou/c_d_2", "iou/c_d_3")
    history = client().get_metric_history(number_of(run), "iou/c_d_2")
    assert [metric.step for metric in history] == [3]
    assert [m.step for m in client().get_metric_history(number_of(run), "labelled_pixels")] == [0, 1, 2, 3]


def test_a_round_that_was_missed_is_sent_at_the_next(tracked, tmp_path, mlflow_here, monkeypatch):
    from mlflow import MlflowClient

    from alseg_mlflow.tracker import MLflow

    uri, client = mlflow_here
    run, records = tmp_path / "run", records_of(tracked[0])
    shutil.copytree(tracked[0], run, ignore=shutil.ignore_patterns("tensorboard", "mlflow.json", "rounds.jsonl"))
    tracker = MLflow(uri, "missed")
    told(tracker, run)
    number = number_of(run)

    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("the server is away")

    for missed, record in enumerate(records):
        with open(run / "rounds.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        with monkeypatch.context() as patch:
            if missed == 0:
                patch.setattr(MlflowClient, "log_batch", away)
            with contextlib.nullcontext() if missed else pytest.raises(ConnectionError):
                tracker.round_finished(folder=str(run), record=record)
    assert [metric.step for metric in client().get_metric_history(number, "labelled_pixels")] == [0, 1]


def test_a_server_that_does_not_answer_is_reported_soon(cli, tmp_path):
    words = [
        *WORDS,
        "-o",
        "report=false",
        "--rounds",
        "1",
        "-o",
        "trackers=mlflow",
        "-o",
        "mlflow.uri=http://127.0.0.1:9",
    ]
    started = time.monotonic()
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    failures = [line for line in outcome.err.splitlines() if "tracker 'mlflow' of alseg failed in" in line]
    assert [line.split("failed in ")[1].split(":")[0] for line in failures] == LIFE_CYCLE
    assert all("127.0.0.1" in line for line in failures)
    assert time.monotonic() - started < 60 * float(os.environ.get("ALSEG_TEST_SLOWNESS", "1"))


@pytest.mark.slow
def test_runs_may_begin_one_database_together(tracked, tmp_path, mlflow_here):
    uri, client = mlflow_here
    runs = [tmp_path / f"run{i}" for i in range(3)]
    for run in runs:
        shutil.copytree(tracked[0], run)
    code = (
        "import sys; from alseg_mlflow.tracker import MLflow; MLflow(sys.argv[1], 'many').run_started(sys.argv[2], {})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, uri, str(run)]) for run in runs]
    assert [process.wait(timeout=300) for process in processes] == [0, 0, 0]
    experiment = client().get_experiment_by_name("many")
    assert {found.info.run_name for found in client().search_runs([experiment.experiment_id])} == {r.name for r in runs}


def test_addresses_of_files_do_not_depend_on_the_folder(tmp_path, monkeypatch):
    from alseg_mlflow.tracker import absolute

    monkeypatch.chdir(tmp_path)
    assert absolute("sqlite:///runs/m.db") == f"sqlite:///{tmp_path}/runs/m.db"
    for same in ("sqlite:////a/m.db", "http://host:5000", "sqlite:///:memory:", "databricks"):
        assert absolute(same) == same


def test_trackers_change_no_result(tracked, cli, tmp_path):
    run, _ = tracked
    plain = tmp_path / "plain"
    assert cli(*WORDS, "--rounds", 2, "--out", plain).code == 0
    assert (plain / "labels.jsonl").read_text() == (run / "labels.jsonl").read_text()
    tracked_run, other = (RunView.read(path) for path in (run, plain))
    assert identity(tracked_run) == identity(other)


def test_query_pictures_mark_the_asked_pixels(tracked):
    run, _ = tracked
    name, picture = next(iter(query_pictures(run, 1)))
    with Image.open(run / "samples" / "00-image.jpg") as file:
        before = np.asarray(file.convert("RGB"), int)
    changed = np.abs(np.asarray(picture, int) - before).sum(2) > 60
    asked = [question for question in questions_of(run, 1) if question["image"] == name]
    near = np.zeros_like(changed)
    scale = picture.width / 64
    for question in asked:
        y, x = (int((question[side] + 0.5) * scale) for side in "yx")
        assert changed[max(0, y - 6) : y + 7, max(0, x - 6) : x + 7].any()
        near[max(0, y - 8) : y + 9, max(0, x - 8) : x + 9] = True
    assert len(asked) == 3
    assert not (changed & ~near).any()


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\udcfcb"], ids=ascii)
def test_questions_about_images_of_any_name_are_told(tmp_path, name):
    folder = RunFolder.create(tmp_path / "run", {})
    folder.write_questions(1, [Question("", name, 1, 2)])
    assert [question["image"] for question in questions_of(folder.path, 1)] == [name]


def test_metrics_and_parameters():
    record = {"round": 3, "miou": 0.5, "iou": {"road": 0.25, "sky": None}, "split": "val", "audit": None, "ok": True}
    assert metrics_of(record) == {"miou": 0.5, "iou/road": 0.25}
    settings = {"seed": 1, "train": {"epochs": 2}, "trackers": ["a", "b"], "record": {"weights": {"sha256": "ab"}}}
    assert parameters_of(settings) == {
        **{"seed": "1", "train.epochs": "2", "trackers": "a, b"},
        "record.weights.sha256": "ab",
    }


TRACKER = """\
from pathlib import Path
from alseg import hookimpl

class Lines:
    def __init__(self, file):
        self.file = Path(file)

    @hookimpl
    def run_started(self, folder):
        self.say(f"started {Path(folder).name}")

    @hookimpl
    def round_finished(self, record):
        self.say(f"round {record['round']}")
        BREAK

    @hookimpl
    def run_finished(self, records):
        self.say(f"finished {len(records)}")

    def say(self, line):
        print("to stdout")
        with self.file.open("a") as file:
            file.write(line + "\\n")

def lines(file: str):
    return Lines(file)

@hookimpl
def register_trackers(register):
    register("lines", lines)
    register("empty", lambda: Path("x"))
"""


def test_a_strangers_tracker(cli, tmp_path):
    file = tmp_path / "piece.py"
    file.write_text(TRACKER.replace("BREAK", "pass"))
    words = ["--plugin", file, *WORDS, "-o", "report=false", "--rounds", "1", "--json", "-o", "trackers=lines"]
    outcome = cli(*words, "-o", f"lines.file={tmp_path / 'lines.txt'}", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["rounds"]  # nothing else on stdout
    assert "to stdout" in outcome.err
    assert (tmp_path / "lines.txt").read_text().split("\n")[:3] == ["started run", "round 0", "finished 1"]
    one_sentence(cli(*words, "--out", tmp_path / "other"), "tracker 'lines' needs -o lines.file=...")


def test_a_tracker_that_fails_ends_no_run(cli, tmp_path):
    file, run = tmp_path / "piece.py", tmp_path / "run"
    file.write_text(TRACKER.replace("BREAK", "raise OSError('the server is away')"))
    words = [*WORDS, "-o", "report=false", "--rounds", "1", "-o", "trackers=lines"]
    outcome = cli("--plugin", file, *words, "-o", f"lines.file={tmp_path / 'lines.txt'}", "--out", run)
    assert outcome.code == 0, outcome.err
    assert f"The tracker 'lines' of {file} failed in round_finished: OSError: the server is away" in outcome.err
    assert "finished 1" in (tmp_path / "lines.txt").read_text()
    assert len(records_of(run)) == 1


def test_trackers_that_cannot_work_are_refused_before_the_run(refused, cli, tmp_path, monkeypatch):
    file = tmp_path / "piece.py"
    file.write_text(TRACKER)
    words = ["--plugin", file, *WORDS]
    refused([*WORDS, "-o", "trackers=tensorbord"], "no tracker 'tensorbord'; did you mean tensorboard")
    refused([*WORDS, "-o", "mlflow.uri=x"], "'mlflow', which is not taken: -o trackers=mlflow")
    refused([*WORDS, "-o", "trackers=mlflow,mlflow"], "given twice")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "alseg_mlflow.tracker", raising=False)
    refused([*WORDS, "-o", "trackers=mlflow"], "The tracker 'mlflow' of alseg", "pip install 'alseg[mlflow]'")
    outcome = cli(*words, "-o", "trackers=empty", "--out", tmp_path / "empty")
    one_sentence(outcome, f"The tracker 'empty' of {file} implements no life-cycle hook", code=1)
    assert not (tmp_path / "empty").exists()


def test_trackers_are_settings(registry):
    flags = {"dataset": "shapes", "dataset.train_images": 4, "trackers": "mlflow", "mlflow.experiment": "mine"}
    config = resolve(registry, {}, flags).config
    assert [(choice.name, choice.options) for choice in config.trackers] == [
        ("mlflow", {"uri": None, "experiment": "mine"})
    ]
    assert config.nested()["trackers"] == ["mlflow"]
    assert config.nested()["mlflow"] == {"uri": "none", "experiment": "mine"}
