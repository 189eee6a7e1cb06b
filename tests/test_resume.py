"""Going on with a run: further than first said, and not with other data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_run import camvid_run, fingerprint, lines

from alseg.api import resolve_stored
from alseg.compare.jobs import fork
from alseg.looking import Looking
from alseg.store import RunFolder


@pytest.mark.parametrize("more", [("--rounds", 3), ("--rounds", 3, "--budget", 50)])
def test_a_finished_run_goes_on_as_if_it_had_been_told_at_once(cli, camvid, tmp_path, more):
    camvid_run(cli, camvid, tmp_path / "long")
    camvid_run(cli, camvid, tmp_path / "short", "--rounds", 2)
    outcome = cli("resume", tmp_path / "short", *more)
    assert outcome.code == 0, outcome.err
    assert fingerprint(tmp_path / "short") == fingerprint(tmp_path / "long")
    assert "rounds = 3" in (tmp_path / "short/run.toml").read_text()


def asked(run: Path) -> list[int]:
    """Pixels of each of the six images in each round."""
    return [len(lines(path / "questions.jsonl")) // 6 for path in sorted((run / "rounds").iterdir())]


def test_a_raised_budget_goes_on_from_what_was_asked_and_is_spent(cli, camvid, tmp_path):
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    camvid_run(cli, camvid, run, "--budget", 9)
    shutil.copytree(run, stopped)
    assert cli("resume", run, "--budget", 14).code == 0
    assert asked(run) == [5, 3, 1, 3, 2]
    assert cli("resume", stopped, "--budget", 14, "--rounds", 4).code == 0
    assert cli("resume", stopped, "--rounds", 5).code == 0
    assert fingerprint(stopped) == fingerprint(run), "whatever interrupts it"
    assert cli("resume", run, "--budget", 15).code == 0
    assert asked(run) == [5, 3, 1, 3, 2, 1]
    assert len(lines(run / "rounds.jsonl")) == 6


EXTENSIONS = {
    "beyond the budget": (("--rounds", 9), "ends after 3 rounds"),
    "fewer than there are": (("--rounds", 1), "has finished 2 rounds"),
    "none": (("--rounds", 0), "rounds takes"),
    "a budget that is spent": (("--budget", 5), "has asked 8 pixels an image already"),
    "a budget beyond the rounds": (("--budget", 500), "give --rounds too"),
}


@pytest.mark.parametrize("case", EXTENSIONS)
def test_a_run_cannot_be_told_nonsense(cli, camvid, tmp_path, case):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 2)
    before = (tmp_path / "run/run.toml").read_bytes()
    words, expected = EXTENSIONS[case]
    outcome = cli("resume", tmp_path / "run", *words)
    assert outcome.code == 2
    assert expected in outcome.err
    assert (tmp_path / "run/run.toml").read_bytes() == before


def test_a_run_over_the_pool_takes_rounds_and_no_budget(cli, camvid, tmp_path):
    words = ("run", "--dataset", "camvid", "--data", camvid, "--encoder", "test_resnet.r160_in1k", "--weights", "none")
    words = (*words, "--size", "64x64", "-o", "model.channels=8", "-o", "train.epochs=1", "-o", "report=false")
    outcome = cli(*words, "--pool-pixels-per-round", 6, "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "it takes --rounds" in cli("resume", tmp_path / "run", "--budget", 50).err
    assert cli("resume", tmp_path / "run", "--rounds", 2).code == 0
    assert [row["labelled_pixels"] for row in lines(tmp_path / "run/rounds.jsonl")] == [6, 12]


def test_a_run_and_a_fork_of_its_first_round_keep_its_precision(cli, camvid, registry, tmp_path, monkeypatch):
    def hardware(bfloat16: bool) -> None:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16, raising=False)

    hardware(False)
    camvid_run(cli, camvid, tmp_path / "whole", "--rounds", 2)
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    settings = RunFolder(tmp_path / "run").settings()
    fork(tmp_path / "run", tmp_path / "fork", {k: v for k, v in settings.items() if k != "record"})
    hardware(True)
    for name in ("run", "fork"):
        outcome = cli("resume", tmp_path / name, "--rounds", 2)
        assert "The run goes on in float32, in which it began; it would begin in bfloat16 here." in outcome.err
        assert fingerprint(tmp_path / name) == fingerprint(tmp_path / "whole")
    run = RunFolder(tmp_path / "run")
    stated = resolve_stored(registry, run, settings | {"precision": "bfloat16"})
    assert stated.config.precision == "bfloat16", "somebody's own word goes first"
    looking = Looking(registry, run, 1, stated.dataset.images("train"), 0)
    assert looking.predicted("train00") is not None
    assert looking._segmenter.precision == "float32", "the page and pickers see what the model chose by"


def repaint(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[5, 5] = 3
    Image.fromarray(pixels).save(path)


CHANGES = {
    "an image": (lambda data: repaint(data / "train/train02.png"), "The image train02 of split 'train' is not what"),
    "a mask": (lambda data: repaint(data / "trainannot/train02.png"), "The mask of train02 of split 'train' is not"),
    "an evaluated mask": (lambda data: repaint(data / "valannot/val01.png"), "The mask of val01 of split 'val'"),
    "one less": (lambda data: (data / "train/train04.png").unlink(), "The image train04 of split 'train', which"),
    "one more": (
        lambda data: [
            shutil.copy(data / f"{name}/train00.png", data / f"{name}/new.png") for name in ("train", "trainannot")
        ],
        "The image new of split 'train' was not there",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_changed_data_are_refused_by_name(cli, camvid, tmp_path, case):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.jsonl")}
    change, expected = CHANGES[case]
    change(camvid)
    outcome = cli("resume", tmp_path / "run", "--rounds", 2)
    assert outcome.code == 2
    assert expected in outcome.err
    assert {path: path.read_bytes() for path in before} == before
    assert "rounds = 1" in (tmp_path / "run/run.toml").read_text(), "nothing is written before the data are checked"


def test_the_same_pixels_in_another_file_are_the_same_data(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    Image.open(camvid / "train/train02.png").save(camvid / "train/train02.webp", lossless=True)
    (camvid / "train/train02.png").unlink()
    assert cli("resume", tmp_path / "run", "--rounds", 2).code == 0


def test_a_piece_that_cannot_work_fails_before_anything_is_trained(cli, camvid, tmp_path):
    """FPN has no dropout for a committee to differ by."""
    words = ("run", "--dataset", "camvid", "--data", camvid, "--model", "fpn", "--encoder", "test_resnet.r160_in1k")
    outcome = cli(*words, "--weights", "none", "--acquirer", "bald", "--size", "64x64", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "no dropout" in outcome.err
    assert not (tmp_path / "run").exists()
