"""Runs of the real command line with networks of transformers and datasets of datasets."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from PIL import Image

pytest.importorskip("transformers", reason="the extra alseg[hf] is not installed")
datasets = pytest.importorskip("datasets", reason="the extra alseg[hf] is not installed")

from test_hf_dataset import NAMES, rows, table  # noqa: E402
from test_run import lines  # noqa: E402
from transformers_networks import write_checkpoint  # noqa: E402

from alseg.config import recipe  # noqa: E402
from alseg_hf.loading import load  # noqa: E402

SHAPES = ["--dataset", "shapes", "-o", "dataset.train_images=4", "-o", "dataset.val_images=2", "-o", "dataset.side=64"]
QUICK = ["--device", "cpu", "-o", "train.epochs=1", "-o", "report=false", "-o", "model.weights=default"]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint", "segformer")


@pytest.fixture
def data(tmp_path) -> Path:
    splits = {"train": table(rows(4)), "validation": table(rows(2))}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "data"))
    return tmp_path / "data"


def words(data: Path, checkpoint: Path | str, *more: object) -> list[object]:
    from_data = ["--dataset", "hf", "--data", data, "--classes", ",".join(NAMES)]
    model = ["--recipe", "hf", "-o", f"model.checkpoint={checkpoint}"]
    few = ["--first-pixels", 3, "--pixels-per-round", 2, "--rounds", 2]
    return ["run", *from_data, *model, *few, *QUICK, *more]


def test_a_run_is_resumed_and_predicts_without_its_checkpoint(cli, data, checkpoint, tmp_path):
    run, photos = tmp_path / "run", tmp_path / "photos"
    outcome = cli(*words(data, checkpoint, "--acquirer", "soft-vote", "-o", "acquirer.passes=2", "--out", run))
    assert outcome.code == 0, outcome.err
    assert "sha256" in (run / "run.toml").read_text()
    before = lines(run / "labels.jsonl")
    assert len(before) == 4 * 5
    (run / "rounds.jsonl").write_bytes(b"".join((run / "rounds.jsonl").read_bytes().splitlines(True)[:1]))
    shutil.rmtree(run / "rounds" / "01")
    (run / "labels.jsonl").write_bytes(b"".join((run / "labels.jsonl").read_bytes().splitlines(True)[:12]))
    outcome = cli("resume", run)
    assert outcome.code == 0, outcome.err
    strip = [{k: label[k] for k in ("image", "y", "x", "class")} for label in lines(run / "labels.jsonl")]
    assert strip == [{k: label[k] for k in ("image", "y", "x", "class")} for label in before]
    photos.mkdir()
    rows(1)["image"][0].resize((50, 41)).save(photos / "a.png")
    assert cli("predict", run, photos, "--out", tmp_path / "first", "--device", "cpu").code == 0
    shutil.rmtree(checkpoint)
    shutil.rmtree(data)
    outcome = cli("predict", run, photos, "--out", tmp_path / "second", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    masks = [np.asarray(Image.open(tmp_path / name / "masks" / "a.png")) for name in ("first", "second")]
    assert masks[0].shape == (41, 50)
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize(
    ("model", "pieces"),
    [
        ("hf", ["--selector", "diverse", "-o", "terms=learning-loss", "--acquirer", "learning-loss"]),
        ("ensemble:hf", ["-o", "model.members=2", "--acquirer", "bald", "-o", "acquirer.passes=2"]),
    ],
)
def test_it_goes_with_pieces_that_look_into_models(cli, checkpoint, tmp_path, model, pieces):
    checkpoint = ["--model", model, "-o", f"model.checkpoint={checkpoint}"]
    outcome = cli("run", *SHAPES, *QUICK, *checkpoint, *pieces, "--rounds", 2, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert len(lines(tmp_path / "run" / "rounds.jsonl")) == 2


def test_from_noise_with_a_configuration_alone(cli, checkpoint, tmp_path):
    (checkpoint / "model.safetensors").unlink()
    noise = ["--model", "hf", "-o", f"model.checkpoint={checkpoint}", "--weights", "none"]
    outcome = cli("run", *SHAPES, *QUICK[:-2], *noise, "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    outcome = cli("run", *SHAPES, *QUICK[:-2], *noise, "--weights", "default", "--out", tmp_path / "other")
    one_sentence(outcome, "there is no model.safetensors")


def test_a_run_is_exported(cli, checkpoint, tmp_path):
    model = ["--model", "hf", "-o", f"model.checkpoint={checkpoint}"]
    assert cli("run", *SHAPES, *QUICK, *model, "--rounds", 1, "--out", tmp_path / "run").code == 0
    outcome = cli("export", tmp_path / "run", "--to", tmp_path / "model.pt2")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "model.pt2").stat().st_size > 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["-o", "model.checkpoint=nobody/nothing"], "nobody/nothing could not be had"),
        (["-o", "model.checkpoint=nobody/nothing", "-o", "model.weights=none"], "nobody/nothing could not be had"),
        (["-o", "dataset.image=text"], "holds no images"),
        (["--classes", "road,sky"], "holds 2 at"),
        (["--classes", "road"], "Two classes or more"),
    ],
)
def test_what_cannot_work_is_refused_before_a_run(refused, data, checkpoint, monkeypatch, changed, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "dataset.image=text" in changed:
        shutil.rmtree(data)
        table({**rows(3), "text": list("abc")}, text=datasets.Value("string")).save_to_disk(str(data))
    refused([*words(data, checkpoint), *changed], said)


def test_a_mask_of_another_size_is_refused(refused, tmp_path, checkpoint):
    columns = rows(3)
    columns["label"][2] = Image.fromarray(np.zeros((5, 6), np.uint8))
    table(columns).save_to_disk(str(tmp_path / "data"))
    refused(words(tmp_path / "data", checkpoint, "-o", "dataset.val_fraction=0"), "The mask of train/000002 is 5x6")


def test_where_a_library_is_missing_the_pieces_are_listed_and_say_what_to_install(cli, monkeypatch, data):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    listed = cli("plugins")
    assert [line.split()[0] for line in listed.out.splitlines() if line.split()[1:2] == ["hf"]] == [
        "dataset",
        "model",
        "recipe",
    ]
    one_sentence(cli("run", *SHAPES, "--model", "hf", "-o", "model.checkpoint=x"), "pip install 'alseg[hf]'")
    one_sentence(cli("run", "--dataset", "hf", "--data", data), "pip install 'alseg[hf]'")


def test_a_checkpoint_of_the_hub_is_taken_from_the_cache(tmp_path, monkeypatch):
    place, commit = tmp_path / "cache" / "models--somebody--tiny", "0123456789abcdef0123456789abcdef01234567"
    write_checkpoint(place / "snapshots" / commit, "segformer")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = load(4, "somebody/tiny", "main", "default", "new")
    assert model.origin["revision"] == commit
    own = load(4, str(place / "snapshots" / commit), "main", "default", "new")
    assert model.origin["sha256"] == own.origin["sha256"]
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 4, 8, 8)


def test_the_recipe_suits_the_model(registry):
    settings = recipe(registry, "hf")
    assert settings["model"] == "hf"
    assert settings["train.learning_rate"] * settings["train.encoder_rate"] == pytest.approx(6e-5)
