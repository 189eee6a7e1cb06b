"""Whole runs through the real command line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, one_sentence
from PIL import Image

import alseg
from alseg.config import with_assignments
from alseg.errors import UserMistake
from alseg.store import RunFolder
from alseg.testing.tiny import NAME
from alseg.testing.tiny_runs import tiny_registry, tiny_run

FIELDS = {
    "round",
    "labelled_pixels",
    "pixels_per_image",
    "split",
    "miou",
    "iou",
    "pixel_accuracy",
    "classes_per_image",
    "classes_per_image_total",
    "loss",
    "decode",
    "train_seconds",
    "acquire_seconds",
    "evaluate_seconds",
    "device",
}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if "seconds" not in k and k != "time"} for row in rows]


def fingerprint(run: Path) -> dict[str, list[dict]]:
    """Everything a run asked, was told and found, times aside."""
    found = {str(path.relative_to(run)): untimed(lines(path)) for path in sorted(run.rglob("*.jsonl"))}
    return found | {
        str(path.relative_to(run)): [{"text": path.read_text()}] for path in sorted(run.rglob("confusion.csv"))
    }


def camvid_run(cli, data: Path, out: Path, *more: object):
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--first-pixels", 5, "--pixels-per-round", 3]
    outcome = cli(*words, "--budget", 11, "--out", out, *more)
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_run_leaves_settings_questions_labels_rounds_and_models(cli, camvid, tmp_path):
    run = tmp_path / "run"
    outcome = camvid_run(cli, camvid, run, "-o", "report=true")
    assert "no new report" not in outcome.err
    assert "mIoU" in outcome.out
    assert str(run) in outcome.out
    rounds = lines(run / "rounds.jsonl")
    assert [row["round"] for row in rounds] == [0, 1, 2]
    assert [row["pixels_per_image"] for row in rounds] == [5, 8, 11]
    assert all(set(row) >= FIELDS for row in rounds)
    assert all(row["split"] == "val" and 0 <= row["miou"] <= 1 for row in rounds)
    labels = lines(run / "labels.jsonl")
    assert len(labels) == 6 * 11
    assert len({(p["image"], p["y"], p["x"]) for p in labels}) == len(labels), "a pixel was asked twice"
    names = ("sky", "building", "pole", "road")
    for label in labels:
        mask = np.asarray(Image.open(camvid / "trainannot" / f"{label['image']}.png"))
        assert label["class"] == names[mask[label["y"], label["x"]]]
    for number in range(3):
        folder = run / "rounds" / f"{number:02}"
        files = {"asking.json", "questions.jsonl", "model.safetensors", "confusion.csv", "samples"}
        assert {path.name for path in folder.iterdir()} == files
        questions = lines(folder / "questions.jsonl")
        assert len(questions) == 6 * (5 if number == 0 else 3)
        assert all((q["utility"] is None) == (number == 0) for q in questions)
        assert {p["item"] for p in labels if p["round"] == number} == {q["item"] for q in questions}
    assert len(lines(run / "journal.jsonl")) == len(labels)
    assert (run / "figures" / "learning-curve.png").stat().st_size > 5000
    assert (run / "report.html").stat().st_size > 50_000
    assert not [path for path in run.rglob("*") if path.suffix in (".tmp", ".pkl", ".pt")]


def test_what_is_asked_is_what_the_model_thinks(cli, camvid, tmp_path):
    run = tmp_path / "run"
    camvid_run(cli, camvid, run, "--selector", "topk", "--rounds", 2)
    for question in lines(run / "rounds" / "01" / "questions.jsonl"):
        assert question["guess"] != question["rival"]
        assert -question["probability"] <= question["utility"] <= 0, "margin is p2 - p1"
        assert 0 <= question["rank"] < 3
    for image in {q["image"] for q in lines(run / "rounds" / "01" / "questions.jsonl")}:
        asked = [q for q in lines(run / "rounds" / "01" / "questions.jsonl") if q["image"] == image]
        utilities = [q["utility"] for q in sorted(asked, key=lambda q: q["rank"])]
        assert utilities == sorted(utilities, reverse=True)


def test_the_same_seed_gives_the_same_run_whatever_workers_and_query_batch(cli, camvid, tmp_path):
    for name, more in {
        "first": ("-o", "train.workers=0"),
        "second": ("-o", "train.workers=3"),
    }.items():
        assert camvid_run(cli, camvid, tmp_path / name, *more).code == 0
    assert fingerprint(tmp_path / "first") == fingerprint(tmp_path / "second")
    camvid_run(cli, camvid, tmp_path / "other", "--seed", 1)
    assert fingerprint(tmp_path / "first") != fingerprint(tmp_path / "other")


def test_a_random_run_asks_the_same_whatever_the_query_batch(cli, camvid, tmp_path):
    for size in (1, 4):
        more = ("--acquirer", "random", "--selector", "uniform", "-o", f"query.batch_size={size}")
        camvid_run(cli, camvid, tmp_path / str(size), *more)

    def where(run: Path) -> list[tuple]:
        return [(q["image"], q["y"], q["x"]) for q in lines(run / "rounds" / "01" / "questions.jsonl")]

    assert where(tmp_path / "1") == where(tmp_path / "4")


@pytest.mark.parametrize("lost", ["rounds/01/questions.jsonl", "rounds/01/model.safetensors", "rounds.jsonl"])
def test_a_resumed_run_equals_an_uninterrupted_one(cli, camvid, tmp_path, lost):
    """What a crash at the worst moments leaves: files of the unfinished round are not there yet."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    camvid_run(cli, camvid, whole)
    camvid_run(cli, camvid, broken)
    seconds = lines(broken / "rounds.jsonl")[1]["acquire_seconds"]
    (broken / "rounds.jsonl").write_bytes(b"".join((broken / "rounds.jsonl").read_bytes().splitlines(True)[:1]))
    for path in (broken / "rounds" / "02").iterdir():
        path.unlink()
    journal = (broken / "journal.jsonl").read_bytes().splitlines(True)
    (broken / "journal.jsonl").write_bytes(b"".join(journal[:33]) + journal[33][:20])  # torn in round 1
    if lost != "rounds.jsonl":
        (broken / lost).unlink()
    if lost == "rounds/01/questions.jsonl":  # then nothing of round 1 was asked or trained
        (broken / "rounds/01/model.safetensors").unlink()
        (broken / "journal.jsonl").write_bytes(b"".join(journal[:30]))
    assert cli("resume", broken).code == 0
    assert fingerprint(broken) == fingerprint(whole)
    kept = lines(broken / "rounds.jsonl")[1]["acquire_seconds"]
    assert kept > 0
    assert (kept == seconds) == (lost != "rounds/01/questions.jsonl"), "as long as it took when it was asked"


def test_a_model_that_was_taken_away_is_trained_again(cli, camvid, tmp_path):
    run, more = tmp_path / "run", ("--rounds", 2)
    camvid_run(cli, camvid, tmp_path / "whole")
    camvid_run(cli, camvid, run, *more)
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(settings.replace("rounds = 2\n", 'rounds = "none"\n'))
    for model in run.rglob("model.safetensors"):
        model.unlink()
    assert cli("resume", run).code == 0
    assert fingerprint(run) == fingerprint(tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(cli, camvid, tmp_path):
    run = tmp_path / "run"
    camvid_run(cli, camvid, run, "--rounds", 1)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = cli("resume", run)
    assert outcome.code == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_the_written_settings_start_the_same_run_again(cli, camvid, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    camvid_run(cli, camvid, first, "--rounds", 2, "-o", "selector.top=0.2", "-o", "augment.labels=nearest")
    assert cli("run", "--config", first / "run.toml", "--out", second).code == 0
    assert fingerprint(first) == fingerprint(second)
    settings = [tomllib.loads((run / "run.toml").read_text()) for run in (first, second)]
    names = [each["record"].pop("run") for each in settings]
    assert names[0] != names[1], "it is another run"
    assert settings[0] == settings[1]
    assert settings[0]["selector"] == {"name": "topk-then-uniform", "top": 0.2}
    assert settings[0]["record"]["weights"]["encoder"] == "test_resnet.r160_in1k"
    assert settings[0]["record"]["void"] == "skip"


def test_void_pixels_are_skipped_or_cost_budget_and_are_never_trained_on(cli, camvid, tmp_path):
    for mask in (camvid / "trainannot").iterdir():
        values = np.asarray(Image.open(mask)).copy()
        values[:48] = 11  # three quarters void
        Image.fromarray(values).save(mask)
    skip, ask = tmp_path / "skip", tmp_path / "ask"
    camvid_run(cli, camvid, skip, "--rounds", 1)
    camvid_run(cli, camvid, ask, "--rounds", 1, "--void", "ask")
    assert all(label["y"] >= 48 and label["class"] for label in lines(skip / "labels.jsonl"))
    asked = lines(ask / "labels.jsonl")
    unknown = [label for label in asked if label["class"] is None]
    assert len(asked) == 30
    assert unknown
    assert all(label["y"] < 48 for label in unknown)
    assert lines(ask / "rounds.jsonl")[0]["labelled_pixels"] == 30 - len(unknown)
    assert sum(e["event"] == "unsure" for e in lines(ask / "journal.jsonl")) == len(unknown)


def test_too_few_candidates_shorten_the_round_and_end_the_run(cli, camvid, tmp_path):
    for mask in (camvid / "trainannot").iterdir():
        values = np.full((64, 64), 11, np.uint8)
        values[10, 10:17] = 2
        Image.fromarray(values).save(mask)
    outcome = camvid_run(cli, camvid, tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert [row["pixels_per_image"] for row in lines(tmp_path / "run" / "rounds.jsonl")] == [5, 7]
    assert "6 images have fewer than 3 candidates" in outcome.err
    assert "no candidate is left" in outcome.err


def test_a_round_asks_at_most_what_is_left_of_the_budget(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--budget", 7)
    assert [row["pixels_per_image"] for row in lines(tmp_path / "run" / "rounds.jsonl")] == [5, 7]


def test_without_evaluation_masks_training_goes_on_unscored(cli, camvid, tmp_path):
    for mask in (camvid / "valannot").iterdir():
        mask.unlink()
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--rounds", 2)
    assert outcome.code == 0, outcome.err
    for row in lines(tmp_path / "run" / "rounds.jsonl"):
        assert [row[name] for name in ("split", "miou", "iou", "pixel_accuracy")] == [None] * 4


def test_mixed_image_sizes_and_odd_sizes(cli, camvid, tmp_path):
    for name, size in (("train00", (33, 47)), ("val01", (81, 30))):
        folder = camvid / name[:-2]
        for path in (folder / f"{name}.png", camvid / f"{name[:-2]}annot" / f"{name}.png"):
            Image.open(path).resize((size[1], size[0]), Image.Resampling.NEAREST).save(path)
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--rounds", 2, "--size", "49x65")
    assert outcome.code == 0, outcome.err
    own = [p for p in lines(tmp_path / "run" / "labels.jsonl") if p["image"] == "train00"]
    assert own
    assert all(p["y"] < 33 and p["x"] < 47 for p in own)


def test_json_prints_the_result_and_nothing_else(cli, camvid, tmp_path):
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1, "--json")
    result = json.loads(outcome.out)
    assert result["run"] == str(tmp_path / "run")
    assert result["rounds"] == lines(tmp_path / "run" / "rounds.jsonl")


def test_a_run_without_out_gets_a_free_folder_of_its_own(cli, camvid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "--dataset", "camvid", "--data", "camvid", *SMALL, "--first-pixels", 1, "--rounds", 1]
    for _ in range(2):
        assert cli(*words).code == 0
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["camvid-margin-topk-then-uniform-0", "camvid-margin-topk-then-uniform-0-2"]
    assert Path(tomllib.loads((tmp_path / "runs" / names[0] / "run.toml").read_text())["dataset"]["data"]).is_absolute()


def test_numbers_are_whole_in_a_narrow_terminal_and_a_piece_has_a_line_in_a_pipe(cli, camvid, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    assert "classes so far" in outcome.out
    pieces = cli("plugins").out.splitlines()
    assert sum(" deeplabv3plus " in line and "output_stride=16" in line for line in pieces) == 1


def test_settings_from_python_may_have_tables_as_a_toml_file_has(tmp_path):
    toml = {"dataset": {"name": NAME}, "model": NAME, "recipe": NAME, "train": {"epochs": 3}, "rounds": 1}
    result = alseg.run({"train": {"batch-size": 2}}, toml=toml, out=tmp_path / "run", registry=tiny_registry())
    train = RunFolder(result.folder).settings()["train"]
    assert (train["epochs"], train["batch_size"], len(result.rounds)) == (3, 2, 1)


@pytest.mark.parametrize(
    "settings",
    ["shapes", [("dataset", "shapes")], {1: "shapes"}, {"train": {1: 2}}, {"dataset": {"name": "shapes", "x": {3: 4}}}],
)
def test_settings_from_python_are_values_by_name(settings):
    with pytest.raises(UserMistake, match="Settings are values by name, such as "):
        alseg.run(settings)


def test_a_longer_run_from_python_takes_whole_numbers(tmp_path):
    run = tiny_run(tmp_path / "run")
    for name in ("rounds", "budget"):
        with pytest.raises(UserMistake, match=f"{name} takes a whole number, not 'many'"):
            alseg.resume(run, registry=tiny_registry(), **{name: "many"})
    assert len(alseg.resume(run, rounds="3", budget="9", registry=tiny_registry()).rounds) == 3


def test_a_size_from_python_may_be_two_numbers(tmp_path):
    settings = {"dataset": NAME, "model": NAME, "recipe": NAME, "rounds": 1, "size": (32, 48)}
    result = alseg.run(settings, out=tmp_path / "run", registry=tiny_registry())
    assert RunFolder(result.folder).settings()["train"]["size"] == "32x48"


ROUNDS = ("--rounds", "2", "-o", "rounds=3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--acquirer", "margin", "-o", "acquirer=entropy"), "acquirer is given as margin and, by -o, as entr"),
        (("run", *ROUNDS), "rounds is given as 2 and, by -o, as 3"),
        (("compare", *ROUNDS), "rounds is given as 2 and, by -o, as 3"),
    ],
)
def test_a_setting_has_one_value_among_a_command_s_flags(cli, tmp_path, words, said):
    one_sentence(cli(*words, "--out", tmp_path / "out"), said, "give one of them")
    assert not (tmp_path / "out").exists()


def test_the_same_value_may_be_given_twice():
    flags = {"deterministic": True, "size": "60x80"}
    assert with_assignments(flags, ["deterministic=true", "size=60X80"])["deterministic"] == "true"
    with pytest.raises(UserMistake, match=r"dataset\.data is given as"):
        with_assignments({"dataset.data": "Photos"}, ["dataset.data=photos"])


def test_help_alone_is_no_mistake_to_speak_of(cli):
    outcome = cli()
    assert "Usage" in outcome.out and outcome.err == ""
