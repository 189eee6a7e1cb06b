"""The runs of a grid, made by real processes."""

from __future__ import annotations

import csv
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SMALL, one_sentence, write_camvid

from alseg.compare.jobs import Job, fork, plan
from alseg.compare.local import LocalExecutor, environment
from alseg.compare.request import understood
from alseg.compare.study import cells
from alseg.store import RunFolder

SETTINGS = {
    "dataset": "camvid",
    "model.encoder": "test_resnet.r160_in1k",
    "model.weights": "none",
    "model.channels": "8",
    "size": "64x64",
    "device": "cpu",
    "rounds": "3",
    "train.epochs": "1",
    "train.batch_size": "4",
}
FLAGS = [word for name, value in SETTINGS.items() for word in ("-o", f"{name}={value}")]


class Told:
    """A watch that keeps what it was told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.errors: dict[str, str | None] = {}
        self.ticks = 0

    def started(self, job: Job) -> None:
        self.begun.append(job.name)

    def finished(self, job: Job, error: str | None) -> None:
        self.errors[job.name] = error

    def tick(self) -> None:
        self.ticks += 1


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_camvid(tmp_path_factory.mktemp("compare") / "data")


@pytest.fixture(scope="module")
def study(tmp_path_factory, registry, data):
    """A finished grid: its folder, its cells, what the watch was told."""
    out = tmp_path_factory.mktemp("study")
    request = understood((), SETTINGS | {"dataset.data": str(data)}, acquirers="margin,entropy")
    made, told = cells(registry, request.grid, request.toml, request.flags), Told()
    LocalExecutor(2)(plan(made, out), out / "logs", told)
    assert set(told.errors.values()) == {None}, told.errors
    return out, made, told


def scores(run: Path) -> list[tuple[float, float, float]]:
    return [(r["miou"], r["loss"], r["classes_per_image"]) for r in RunFolder(run).rounds()]


def test_a_shared_first_round_gives_what_a_run_alone_gives(study, cli, data, tmp_path):
    out, made, _ = study
    alone = tmp_path / "alone"
    more = ("--dataset", "camvid", "--data", data, "--rounds", "3", "--acquirer", "entropy")
    assert cli("run", *more, *SMALL, "--selector", "topk-then-uniform", "--out", alone).code == 0
    shared = out / "runs" / made[2].name
    assert made[2].settings["acquirer"]["name"] == "entropy"
    assert scores(shared) == scores(alone)
    for name in ("labels.jsonl", *(f"rounds/{round:02}/questions.jsonl" for round in range(3))):
        assert [json.loads(a) | {"seconds": 0} for a in (shared / name).read_text().splitlines()] == [
            json.loads(b) | {"seconds": 0} for b in (alone / name).read_text().splitlines()
        ]


def test_the_first_round_is_trained_once_and_only_last_models_are_kept(study):
    out, made, told = study
    assert told.begun[0].startswith("first round") and len(told.begun) == 1 + len(made) == 4
    firsts = list((out / "first-rounds").iterdir())
    assert [len(RunFolder(first).rounds()) for first in firsts] == [1]
    for cell in made:
        models = sorted((out / "runs" / cell.name).rglob("model.safetensors"))
        assert [model.parent.name for model in models] == ["02"]


def test_what_is_finished_is_not_done_again_and_more_is_added(study, registry, data, tmp_path):
    source, made, _ = study
    out = tmp_path / "study"
    shutil.copytree(source, out)
    assert plan(made, out) == []
    request = understood((), SETTINGS | {"dataset.data": str(data)}, acquirers="margin,entropy", seeds="2")
    more = cells(registry, request.grid, request.toml, request.flags)
    assert [job.name.split("seed=")[1][0] for job in plan(more, out)] == ["1"] * 4, "only what is missing"
    longer = understood((), SETTINGS | {"dataset.data": str(data), "rounds": "4"}, acquirers="margin")
    again = cells(registry, longer.grid, longer.toml, longer.flags)
    before = {cell.name: (out / "runs" / cell.name / "rounds.jsonl").read_bytes() for cell in again}
    jobs, told = plan(again, out), Told()
    assert [job.after for job in jobs] == [None, None]
    LocalExecutor(1)(jobs, out / "logs", told)
    for cell in again:
        assert len(RunFolder(out / "runs" / cell.name).rounds()) == 4, told.errors
        assert (out / "runs" / cell.name / "rounds.jsonl").read_bytes().startswith(before[cell.name])


def test_other_settings_in_the_same_folder_are_refused(study, cli, data):
    out, _, _ = study
    words = ("compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "-o", "train.epochs=2", "--out", out)
    one_sentence(cli(*words), "was made with train.epochs = 1, not 2", "give another --out")


def test_a_fork_shares_nothing_that_is_written(study, tmp_path):
    out, made, _ = study
    first = next((out / "first-rounds").iterdir())
    kept = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    fork(first, tmp_path / "fork", made[1].settings)
    run = RunFolder(tmp_path / "fork")
    assert len(run.rounds()) == 1 and run.settings()["acquirer"]["name"] == "margin"
    for path in run.path.rglob("*.jsonl"):
        path.write_text("torn")
    run.write_round(RunFolder(first).rounds()[0] | {"round": 0})
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_job_that_fails_is_told_and_the_rest_goes_on(study, registry, data, tmp_path):
    _, made, _ = study
    good = plan(made[:1], tmp_path / "good")
    broken = [
        replace(
            job,
            name=f"broken {job.name}",
            after=job.after and f"broken {job.after}",
            settings={**job.settings, "oracle": {"name": "nobody"}},
        )
        for job in plan(made[1:], tmp_path / "bad")
    ]
    told = Told()
    LocalExecutor(2)([*broken, *good], tmp_path / "logs", told)
    assert "no oracle 'nobody'" in str(told.errors[broken[0].name])
    assert "failed, with which it begins" in str(told.errors[broken[1].name])
    assert [told.errors[job.name] for job in good] == [None, None]
    assert "nobody" in next((tmp_path / "logs").glob("broken-first-round*")).read_text()


def test_asking_only_trains_nothing_after_the_first_round(study, cli, data, tmp_path):
    source, made, _ = study
    out = tmp_path / "asked"
    shutil.copytree(source / "first-rounds", out / "first-rounds")
    # as many threads a run as in the study
    words = ("compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "--jobs", "2", "--out", out)
    asked = cli(*words, "--ask-only", "--json")
    assert asked.code == 0, asked.err
    for cell in made:
        run, whole = out / "runs" / cell.name, source / "runs" / cell.name
        assert len(RunFolder(run).rounds()) == 1
        found = json.loads((run / "asked.json").read_text())
        assert found["classes_per_image"] == RunFolder(whole).rounds()[1]["classes_per_image"]
    again = time.monotonic()
    assert cli(*words, "--ask-only").code == 0
    assert time.monotonic() - again < 10, "nothing is asked twice"
    assert cli(*words).code == 0, "and the runs can be trained to their end"
    for cell in made:
        assert scores(out / "runs" / cell.name) == scores(source / "runs" / cell.name)


def test_asking_goes_on_where_it_was_stopped(study, registry, tmp_path):
    """A fork that has asked nothing yet, and one that has no round yet, are not trained to their end."""
    source, made, _ = study
    out = tmp_path / "asked"
    shutil.copytree(source / "first-rounds", out / "first-rounds")
    first = next((out / "first-rounds").iterdir())
    fork(first, out / "runs" / made[1].name, made[1].settings)
    bare = out / "runs" / made[2].name
    fork(first, bare, made[2].settings)
    for name in ("rounds.jsonl", "labels.jsonl", "rounds/00/model.safetensors"):
        (bare / name).unlink()
    told = Told()
    LocalExecutor(1)(plan(made, out, ask_only=True), out / "logs", told)
    assert set(told.errors.values()) == {None}, told.errors
    assert plan(made, out, ask_only=True) == []
    for cell in made:
        run = out / "runs" / cell.name
        assert len(RunFolder(run).rounds()) == 1 and (run / "asked.json").exists()
        assert RunFolder(run).settings()["rounds"] == 3
    assert plan(made, source, ask_only=True) == [], "whole runs have asked"


def test_what_a_killed_process_left_counts_for_nothing(study, cli, tmp_path):
    source, made, _ = study
    out = tmp_path / "study"
    shutil.copytree(source, out)
    half = out / "runs" / f".{made[1].name}.half"
    shutil.copytree(out / "runs" / made[1].name, half)
    shown = cli("compare", out, "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)["comparison"] == str(out / "comparison.html"), "beside its runs"
    assert half.name not in (out / "comparison.html").read_text()


def test_a_damaged_run_is_named_and_the_others_are_shown(study, cli, data, tmp_path):
    source, made, _ = study
    out = tmp_path / "study"
    shutil.copytree(source, out)
    (out / "runs" / made[1].name / "rounds.jsonl").write_text("torn\n")
    done = cli("compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "--out", out)
    assert done.code == 1
    assert made[1].name in done.err and "move" in done.err and "anew" in done.err
    rows = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    assert {row["acquirer"] for row in rows} == {"random", "entropy"}


def test_a_baseline_that_is_not_there_costs_no_run_and_no_page(study, cli, data, tmp_path):
    out, _, _ = study
    words = ("compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "--out", out)
    spelt = cli(*words, "--baseline", "margin,topk-then-uniform")
    assert spelt.code == 0 and "There is no strategy" not in (out / "comparison.html").read_text(), spelt.err
    wrong = cli(*words[:-1], tmp_path / "out", "--baseline", "margni, topk-then-uniform")
    one_sentence(wrong, "There is no strategy 'margni, topk-then-uniform'", "did you mean 'margin, topk-then-uniform'")
    assert wrong.code == 2 and not (tmp_path / "out").exists(), "said before anything is done"
    stored = (out / "comparison.toml").read_text()
    (out / "comparison.toml").write_text(stored.replace('baseline = "margin,', 'baseline = "margni,'))
    later = cli("compare", out, "--json")
    assert later.code == 0 and "'margni, " in json.loads(later.out)["note"], (
        "the stored baseline is no reason to refuse"
    )
    assert "There is no strategy" in (out / "comparison.html").read_text()
    one_sentence(cli("compare", out, "--baseline", "margni"), "There is no strategy 'margni'")
    (out / "study.toml").write_text("[[compare.published]]\nmiou = 3\n")
    one_sentence(cli(*words, "--config", out / "study.toml"), "[[compare.published]] takes")


def test_what_libraries_print_is_no_result(study, tmp_path, monkeypatch):
    _, made, _ = study
    (tmp_path / "sitecustomize.py").write_text("print('{} hello')\nprint(3)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    told = Told()
    LocalExecutor(1)(plan(made[:1], tmp_path / "out"), tmp_path / "logs", told)
    assert set(told.errors.values()) == {None}, told.errors


def test_a_process_that_cannot_start_is_told(study, tmp_path, monkeypatch):
    _, made, _ = study
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    told = Told()
    LocalExecutor(1)(plan(made[:1], tmp_path / "out"), tmp_path / "logs", told)
    assert "FileNotFoundError" in str(told.errors[next(iter(told.errors))])


class Impatient(Told):
    """A watch at which Ctrl-C is pressed while the first job is done."""

    def tick(self) -> None:
        super().tick()
        if self.ticks > 3:
            raise KeyboardInterrupt


def test_the_pipes_to_processes_are_closed_whatever_became_of_them(tmp_path):
    (tmp_path / "dies.py").write_text("import os\nos._exit(9)\n")

    def job(name: str, *plugins: str) -> Job:
        return Job(name, str(tmp_path / name), {"dataset": {"name": "none such"}}, plugins=plugins)

    jobs, told = [job("one", str(tmp_path / "dies.py")), job("other")], Told()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        LocalExecutor(1)(jobs, tmp_path / "logs", told)
        with pytest.raises(KeyboardInterrupt):
            LocalExecutor(1)(jobs, tmp_path / "logs", Impatient())
        gc.collect()
    assert "stopped with 9" in str(told.errors["one"])
    assert "none such" in str(told.errors["other"])
    assert [str(each.message) for each in caught] == []


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_threads_that_somebody_gave_count(monkeypatch, name):
    for other in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "3")
    made = environment(2, ["a", "b"], 1)
    assert (made["OMP_NUM_THREADS"], made["MKL_NUM_THREADS"], made["CUDA_VISIBLE_DEVICES"]) == ("3", "3", "b")


def test_the_command_line_from_nothing_to_a_page(cli, data, tmp_path):
    out = tmp_path / "out"
    words = ("compare", "--data", data, "--acquirers", "margin", *FLAGS, "--seeds", "2", "--out", out)
    done = cli(*words, "--full-supervision", "--baseline", "margin, topk-then-uniform", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert Path(result["comparison"]).is_file() and result["failed"] == {}
    with open(out / "summary.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    told = [{name: "" if value is None else str(value) for name, value in row.items()} for row in result["summary"]]
    assert rows == told
    wanted = ("acquirer", "selector", "pixels_per_image", "seeds", "miou_mean", "miou_std", "difference", "p_value")
    assert {*wanted, "verdict", "classes_per_image"} <= rows[0].keys()
    assert {(row["acquirer"], float(row["pixels_per_image"])) for row in rows} >= {("margin", 20.0), ("random", 20.0)}
    again = cli("compare", out, "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert "margin, topk-then-uniform" in again.out
    one_sentence(cli("compare", out, "--seeds", "3"), "--seeds is for a grid of runs to be made")
    one_sentence(cli("compare", tmp_path / "nowhere"), "is no run and holds none")
    one_sentence(cli("compare", *words[1:-1], next((out / "runs").iterdir())), "is a run: give another --out")


def started(words: list[object], **more) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alseg", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def workers_of(parent: int) -> list[int]:
    """The processes that a process has started."""
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent_and_the_same_command_goes_on(study, data, tmp_path, how):
    source, made, _ = study
    out = tmp_path / "out"
    words = ["compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "--jobs", "2", "--out", out]
    # pytest in the background ignores SIGINT, and children inherit that
    process = started(words, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    end = time.monotonic() + 120
    while not list(out.glob("runs/*/rounds.jsonl")) and time.monotonic() < end:
        time.sleep(0.05)
    children = workers_of(process.pid)
    process.send_signal(how)
    asked = time.monotonic()
    _, said = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert time.monotonic() - asked < 10, "the processes end by themselves"
        assert process.returncode == 130 and "the same command goes on" in said, said
    end = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < end:
        time.sleep(0.1)
    assert children and not any(Path(f"/proc/{child}").exists() for child in children)
    done = subprocess.run([sys.executable, "-m", "alseg", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for cell in made:
        assert scores(out / "runs" / cell.name) == scores(source / "runs" / cell.name)


@pytest.mark.slow
def test_a_killed_worker_costs_one_try(study, data, tmp_path):
    source, made, _ = study
    out = tmp_path / "out"
    words = ["compare", "--data", data, "--acquirers", "margin,entropy", *FLAGS, "--jobs", "2", "--out", out]
    process = started(words)
    end = time.monotonic() + 120
    while not list(out.glob("runs/*/rounds.jsonl")) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "1 of the runs failed" in said and "stopped by SIGKILL" in said and "tries them again" in said
    done = subprocess.run([sys.executable, "-m", "alseg", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for cell in made:
        assert scores(out / "runs" / cell.name) == scores(source / "runs" / cell.name)


@pytest.mark.slow
def test_two_at_once_in_one_folder(data, tmp_path):
    out = tmp_path / "out"
    words = ["compare", "--data", data, "--acquirers", "margin", *FLAGS, "--out", out]
    first = started(words)
    while not (out / "comparison.toml").exists() and first.poll() is None:
        time.sleep(0.05)
    second = subprocess.run([sys.executable, "-m", "alseg", *map(str, words)], capture_output=True, text=True)
    assert second.returncode == 2 and "Another process works on the comparison" in second.stderr
    first.communicate(timeout=120)
    assert first.returncode == 0
