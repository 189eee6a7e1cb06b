"""Runs whose files lie elsewhere now, whose weights are others, or whose settings somebody changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import timm
from conftest import one_sentence
from safetensors.torch import save_file
from test_resume import repaint
from test_run import camvid_run, fingerprint

from alseg.config import resolve
from alseg.moved import FIXED, digests
from alseg.store import RunFolder

ENCODER = "test_resnet.r160_in1k"


def settings_of(run: Path) -> str:
    return (run / "run.toml").read_text()


def test_a_run_goes_on_where_its_images_lie_now(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "stayed")
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    place = camvid.rename(tmp_path / "else where")
    one_sentence(cli("resume", tmp_path / "run", "--rounds", 3), "There is no folder", "with --data")
    outcome = cli("resume", tmp_path / "run", "--rounds", 3, "--data", place)
    assert outcome.code == 0, outcome.err
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "stayed")
    assert str(place) in settings_of(tmp_path / "run"), "the next resume finds them"


def test_a_finished_run_learns_where_its_images_lie_now(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    before = settings_of(tmp_path / "run")
    place = camvid.rename(tmp_path / "elsewhere")
    assert cli("resume", tmp_path / "run", "--data", place).code == 0
    assert settings_of(tmp_path / "run") == before.replace(str(camvid), str(place))


@pytest.mark.parametrize("rounds", [(), ("--rounds", 2)], ids=["finished", "to go on"])
def test_other_images_are_refused_there(cli, camvid, tmp_path, rounds):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    before = settings_of(tmp_path / "run")
    other = shutil.copytree(camvid, tmp_path / "other")
    repaint(other / "train/train02.png")
    one_sentence(cli("resume", tmp_path / "run", "--data", other, *rounds), "The image train02 of split 'train'")
    assert settings_of(tmp_path / "run") == before


def test_what_has_no_place_takes_none(cli, tmp_path):
    words = ("--encoder", ENCODER, "--weights", "none", "--size", "32x32", "-o", "train.epochs=1", "-o", "report=false")
    run = tmp_path / "run"
    assert cli("run", "--dataset", "shapes", *words, "--rounds", 1, "--out", run).code == 0
    one_sentence(cli("resume", run, "--data", tmp_path), "The dataset of the run", "leave --data out")


def test_weights_may_move_and_must_stay_the_same(cli, camvid, tmp_path):
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model(ENCODER).state_dict(), weights)
    camvid_run(cli, camvid, tmp_path / "run", "--weights", weights, "--rounds", 1)
    others = tmp_path / "others.safetensors"
    save_file(timm.create_model(ENCODER).state_dict(), others)
    moved = weights.rename(tmp_path / "moved.safetensors")
    for words, said in (
        ((), "weights.safetensors"),
        (("--weights", others), "others.safetensors are not those that the run"),
        (("--weights", "none"), "none are not those that the run"),
    ):
        before = settings_of(tmp_path / "run")
        outcome = cli("resume", tmp_path / "run", "--rounds", 2, *words)
        assert outcome.code == 2 and said in outcome.err
        assert len(RunFolder(tmp_path / "run").rounds()) == 1
        if words:
            assert settings_of(tmp_path / "run") == before, "the next resume finds what it found"
            finished = cli("resume", tmp_path / "run", *words)
            assert finished.code == 2 and said in finished.err and settings_of(tmp_path / "run") == before
    outcome = cli("resume", tmp_path / "run", "--rounds", 2, "--weights", moved)
    assert outcome.code == 0, outcome.err


CHANGES = {
    "train": (r"epochs = \d+", "epochs = 3"),
    "model": (r"channels = \d+", "channels = 9"),
    "augment": (r"flip = [\d.]+", "flip = 0.25"),
    "seed": (r"seed = 0", "seed = 1"),
    "evaluate": (r'(\[evaluate\]\nsize) = "none"', r'\1 = "48x48"'),
    "query": (r'(\[query\]\nsize) = "64x64"', r'\1 = "48x48"'),
}


@pytest.mark.parametrize("table", CHANGES)
def test_settings_changed_by_hand_are_refused_by_their_table(cli, camvid, tmp_path, table):
    run = tmp_path / "run"
    camvid_run(cli, camvid, run, "--rounds", 1)
    before = settings_of(run)
    changed, count = re.subn(*CHANGES[table], before, count=1)
    assert count == 1 and changed != before
    (run / "run.toml").write_text(changed)
    one_sentence(
        cli("resume", run, "--rounds", 2),
        f"other settings in {table if table == 'seed' else f'[{table}]'} than the run's rounds so far",
    )
    (run / "run.toml").write_text(before)
    assert cli("resume", run, "--rounds", 2).code == 0


@pytest.mark.parametrize(
    ("changed", "owners"),
    [
        ({"seed": 1}, "seed"),
        ({"evaluate.size": "32x32"}, "query evaluate"),
        ({"query.size": "32x32"}, "query"),
        ({"terms": "none"}, "terms"),
        ({"learning_loss.weight": 3}, "terms"),
        ({"rounds": 3, "budget": 400, "selector.top": 0.5, "trackers": "tensorboard", "evaluate.batch_size": 2}, ""),
        ({"query.batch_size": 2}, ""),
    ],
    ids=str,
)
def test_what_rounds_were_made_with_is_told_by_its_name(registry, changed, owners):
    given = {"dataset": "shapes", "model.weights": "none", "terms": "learning-loss"}
    before, now = (digests(resolve(registry, given, flags).config) for flags in ({}, changed))
    assert [name for name in FIXED if before[name] != now[name]] == owners.split()


def test_the_size_of_queries_is_free_where_evaluation_has_its_own(registry):
    given = {"dataset": "shapes", "model.weights": "none", "evaluate.size": "48x48"}
    before, now = (digests(resolve(registry, given, flags).config) for flags in ({}, {"query.size": "32x32"}))
    assert before == now


def test_what_changes_no_result_may_be_changed(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    text = settings_of(tmp_path / "run")
    (tmp_path / "run/run.toml").write_text(re.sub(r"workers = \d+", "workers = 1", text))
    assert cli("resume", tmp_path / "run", "--rounds", 2).code == 0
    assert set(RunFolder(tmp_path / "run").rounds()[-1]["settings"]) == set(FIXED)
