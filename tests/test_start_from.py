"""Runs that start from labels."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from conftest import SMALL, write_camvid
from test_run import fingerprint, lines

from alseg.cli.app import run_cli
from alseg.config import RunConfig, flatten, resolve
from alseg.interchange.labelset import read_run
from alseg.interchange.tables import read_csv
from alseg.plugins import load_plugins
from alseg.schedule import Schedule

ROWS = [
    f"train{i:02},{y},{x},{name}" for i in range(6) for y, x, name in ((9, 9, "sky"), (20, 50, "road"), (63, 0, ""))
]


def words(data: Path, out: Path, *more: object) -> list[str]:
    given = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--pixels-per-round", 2, "--budget", 4]
    return [*map(str, [*given, "--out", out, *more])]


def table(path: Path, *rows: str) -> Path:
    path.write_text("image,y,x,class\n" + "".join(row + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Path:
    """A folder with data, labels and a run that started from them."""
    root = tmp_path_factory.mktemp("started")
    source = table(root / "labels.csv", *ROWS)
    assert run_cli(words(write_camvid(root / "camvid"), root / "run", "--start-from", source)) == 0
    return root


def test_the_first_round_trains_on_them_and_asks_nothing(started):
    run = started / "run"
    rounds = lines(run / "rounds.jsonl")
    assert [row["asked_pixels"] for row in rounds] == [0, 12, 12], "the budget counts what is asked"
    assert [row["labelled_pixels"] for row in rounds] == [12, 24, 36], "what nobody could tell is not trained on"
    assert rounds[0]["classes_per_image"] == 2
    labels = lines(run / "labels.jsonl")
    first = [label for label in labels if label["round"] == 0]
    assert [(p["image"], p["y"], p["x"], p["class"] or "") for p in first] == [
        (row.split(",")[0], int(row.split(",")[1]), int(row.split(",")[2]), row.split(",")[3]) for row in ROWS
    ]
    assert {label["source"] for label in first} == {"imported"}
    assert len({(p["image"], p["y"], p["x"]) for p in labels}) == len(labels), "a pixel was asked again"
    assert len({p["item"] for p in labels}) == len(labels)
    assert lines(run / "rounds/00/questions.jsonl") == []


def test_the_run_says_what_it_started_from(started):
    facts = tomllib.loads((started / "run/run.toml").read_text())
    start = facts["record"]["start"]
    assert facts["start_from"] == start["path"] == str(started / "labels.csv")
    assert "first_pixels" not in facts
    assert start["sha256"] == hashlib.sha256((started / "labels.csv").read_bytes()).hexdigest()
    assert (start["labels"], start["images"]) == (18, 6)
    assert len(read_csv(started / "run/start.csv").labels) == 18


@pytest.mark.parametrize(
    "lost",
    [
        ["rounds/00/model.safetensors", "rounds/00/questions.jsonl"],  # killed before anything was trained
        ["rounds/00/model.safetensors"],
        ["rounds/01/model.safetensors", "rounds/01/questions.jsonl"],
        ["rounds/01/model.safetensors"],
    ],
)
def test_it_goes_on_as_if_never_stopped_without_the_labels_file(cli, started, tmp_path, lost):
    run, reached = tmp_path / "run", int(lost[0].split("/")[1])
    shutil.copytree(started / "run", run)
    shutil.copytree(started / "camvid", tmp_path / "camvid")
    kept = (run / "rounds.jsonl").read_bytes().splitlines(True)[:reached]
    (run / "rounds.jsonl").write_bytes(b"".join(kept))
    for number in range(reached + 1, 3):
        shutil.rmtree(run / f"rounds/{number:02}")
    for name in lost:
        (run / name).unlink()
    if not reached:
        (run / "labels.jsonl").unlink()
    if len(lost) == 2:
        (run / "journal.jsonl").unlink(missing_ok=True)
    text = (run / "run.toml").read_text()
    (run / "run.toml").write_text(text.replace(str(started), str(tmp_path)))  # where there is no labels.csv
    outcome = cli("resume", run)
    assert outcome.code == 0, outcome.err
    assert fingerprint(run) == fingerprint(started / "run")


def test_a_start_that_was_changed_is_named(cli, started, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(started / "run", run)
    (run / "rounds.jsonl").write_bytes(b"")
    (run / "start.csv").write_bytes((run / "start.csv").read_bytes().replace(b"sky", b"road"))
    outcome = cli("resume", run)
    assert outcome.code == 1
    assert "start.csv is not what the run began with" in outcome.err


@pytest.mark.parametrize("name", ["csv", "coco", "label-studio", "napari", "run"])
def test_any_format_starts_the_same_run(cli, started, tmp_path, name):
    source = started / "run"
    if name != "run":
        source = tmp_path / "labels"
        assert cli("export", started / "run", "--format", name, "--out", source).code == 0
    outcome = cli(*words(started / "camvid", tmp_path / "run", "--start-from", source, "--rounds", 1))
    assert outcome.code == 0, outcome.err
    before, after = lines(started / "run/labels.jsonl"), lines(tmp_path / "run/labels.jsonl")
    assert [label | {"item": "", "round": 0} for label in before] == [label | {"item": ""} for label in after]
    assert (tmp_path / "run/start.csv").read_bytes().count(b"r02-") == 12, "start.csv keeps what was imported"


REFUSED = {
    "another image": (["other,0,0,sky"], (), "1 image is none of the training images: 'other'"),
    "an image of val": (["val00,0,0,sky"], (), "'val00' is no training image: a run starts from labels of these alone"),
    "another class": (["train00,0,0,moon"], (), "'moon', at (y 0, x 0) of 'train00', is no class"),
    "outside": (["train00,0,64,sky"], (), "outside the image of 64x64"),
    "nothing known": (["train00,0,0,"], (), "no label to train on"),
    "first pixels too": (["train00,0,0,sky"], ("--first-pixels", 3), "start_from replaces"),
    "all labels": (["train00,0,0,sky"], ("--labels", "all"), "labels = all"),
    "another table": (["a"], (), "has 1 fields"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_run_cannot_start_from_is_refused(refused, started, tmp_path, case):
    rows, more, expected = REFUSED[case]
    source = table(tmp_path / "labels.csv", *rows)
    given = words(started / "camvid", tmp_path)[:-2]
    refused([*given, "--start-from", source, *more], expected)


def test_over_the_pool_too(cli, started, tmp_path):
    given = ["run", "--dataset", "camvid", "--data", started / "camvid", *SMALL, "--pool-pixels-per-round", 5]
    outcome = cli(*given, "--rounds", 2, "--start-from", started / "labels.csv", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert [row["asked_pixels"] for row in lines(tmp_path / "run/rounds.jsonl")] == [0, 5]


def test_what_only_measured_is_not_trained_on(cli, started, tmp_path):
    source = tmp_path / "labels.csv"
    source.write_text("image,y,x,class,audit\ntrain00,5,5,sky,\ntrain01,6,6,road,yes\n")
    outcome = cli(*words(started / "camvid", tmp_path / "run", "--start-from", source, "--rounds", 2))
    assert outcome.code == 0, outcome.err
    assert [row["labelled_pixels"] for row in lines(tmp_path / "run/rounds.jsonl")] == [1, 13]
    assert [label.get("audit", False) for label in lines(tmp_path / "run/labels.jsonl")][:3] == [False, True, False]


def test_a_person_is_asked_from_the_second_round_on(cli, started, tmp_path):
    given = words(started / "camvid", tmp_path / "run", "--start-from", started / "labels.csv", "--oracle", "human")
    outcome = cli(*given, "--no-wait")
    assert outcome.code == 3, outcome.err
    assert "Round 1 waits for 12 of 12 answers" in outcome.err
    assert len(lines(tmp_path / "run/rounds.jsonl")) == 1


def test_labels_that_wait_for_the_first_training_can_be_exported(started, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(started / "run", run)
    for name in ("rounds.jsonl", "labels.jsonl", "journal.jsonl"):
        (run / name).unlink(missing_ok=True)
    shutil.rmtree(run / "rounds")
    assert [(p.item, p.round) for p in read_run(run).labels][-1] == ("start-0000017", 0)


def config(**settings: object) -> RunConfig:
    return resolve(load_plugins(), {}, flatten(settings)).config


def test_the_budget_counts_what_is_asked(tmp_path):
    before = config(budget=7, pixels_per_round=3, first_pixels=2)
    after = config(budget=7, pixels_per_round=3, start_from=str(tmp_path))
    single = config(budget=1, pixels_per_round=1, start_from=str(tmp_path))
    for settings, expected in ((before, [2, 3, 2]), (after, [0, 3, 3, 1]), (single, [0, 1])):
        schedule = Schedule(settings)
        assert [schedule.pixels_in(round) for round in range(schedule.total_rounds())] == expected
    stored = json.loads(json.dumps(after.nested()))
    assert resolve(load_plugins(), flatten(stored), {}).config == config(**flatten(stored))
    assert "start_from" not in before.nested()
