"""What is measured on a GPU, at a tiny size on a CPU."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SMALL, write_camvid
from test_steps import Replayed

from benchmarks import gpu, gpu_pieces
from benchmarks.equivalence import MEASURES
from benchmarks.gpu_page import SECTIONS, SEEDS, duration, page
from benchmarks.gpu_runs import equivalence, recipe
from benchmarks.hardware import Traffic, covered
from benchmarks.material import Material, Repeated, generated, labels_of, model, sparse_masks

ROOT = Path(__file__).parent.parent
ENCODER = "test_resnet.r160_in1k"


@pytest.mark.slow
def test_all_pieces_are_measured_in_several_calls(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    for name in ("", "annot"):
        (data / f"val{name}").rename(data / f"test{name}")
    write_camvid(tmp_path / "other", seed=3)
    for name in ("", "annot"):
        (tmp_path / "other" / f"val{name}").rename(data / f"val{name}")
    tiny = [word for word in SMALL if word not in ("--weights", "none", "--device", "cpu")]
    tiny += ["--first-pixels", "5", "--pixels-per-round", "5", "--budget", "10"]
    words = ["--data", data, "--weights", "none", "--device", "cpu", "--encoder", ENCODER, "--minutes", "3"]
    words += ["--images", "5", "--batch", "2", "--pixels", "5", "--repeats", "2", "--steps", "3", "--epochs", "1"]
    words += ["--equivalence-seeds", "2", "--equivalence-epochs", "1", "--equivalence-size", "48x64"]
    words += ["--runs", "1,2", "--city-images", "6", "--city-size", "32x64", "--pace", "0.1"]
    codes, packed = [], tmp_path / "state.tar.gz"
    for call, only in enumerate(("checks,recipe", None, None, None, None)):
        state = tmp_path / f"state{call}"  # each call on a fresh machine
        more = [*(["--unpack", packed] if call else []), *(["--only", only] if only else [])]
        command = [sys.executable, "-m", "benchmarks.gpu", *words, "--state", state, "--pack", packed, *more]
        command = [str(word) for word in [*command, "--", *tiny]]
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True)
        codes.append(done.returncode)
        assert done.returncode in (0, 3), done.stderr
        if only is None and done.returncode == 0:
            break
    assert codes[0] == 0 and codes[-1] == 0
    text = (state / "gpu.md").read_text()
    assert text in done.stdout
    for name in SECTIONS:
        assert f"## {name}" in text
    assert "Not measured yet" not in text
    assert len(json.loads((state / "recipe.json").read_text())["miou"]) == 2
    for decode in ("points", "dense"):
        with gzip.open(state / f"step-{decode}.json.gz", "rt") as trace:
            events = json.load(trace)["traceEvents"]
        assert any("convolution_backward" in str(event.get("name")) for event in events)
    assert (state / "camvid" / "camvid.md").exists() and "aten::" in (state / "profile.txt").read_text()
    assert not list(state.rglob("*.failed.txt"))


def test_a_piece_that_fails_stops_no_other(tmp_path, monkeypatch, capsys):
    data = write_camvid(tmp_path / "camvid", train=2, val=1)
    words = ["gpu", "--data", data, "--weights", "none", "--device", "cpu", "--encoder", ENCODER, "--pixels", "5"]
    words += [
        "--state",
        tmp_path / "state",
        "--images",
        "2",
        "--batch",
        "9",
        "--only",
        "profile,cityscapes-acquisition",
    ]
    words += ["--city-images", "2", "--city-size", "32x64", "--pack", tmp_path / "state.tar.gz"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])

    def in_this_process(piece, arguments, end):
        if gpu.alone(piece, arguments):
            raise gpu.gpu_runs.PieceFailed("it cannot")

    monkeypatch.setattr(gpu, "follow", in_this_process)
    monkeypatch.setattr(gpu_pieces, "batches", None)
    assert gpu.main() == 1
    text = capsys.readouterr().out
    assert "Failed: profile: it cannot" in text
    assert "2 images of 32x64 in memory" in text
    assert "'NoneType' object is not callable" in (tmp_path / "state" / "profile.failed.txt").read_text()


def test_recorded_steps_stand_beside_plain_ones(tmp_path):
    images = generated(tmp_path, 4, (48, 64))
    labels = labels_of(images, 5)
    material = Material(images, labels, sparse_masks(images, labels), batch_size=4, pixels=5, precision="float32")
    found = gpu_pieces.recorded_beside_plain(material, model(ENCODER), Replayed)
    assert found["worst"] < 1e-3 and len(found["plain"]) == gpu_pieces.STEPS and not found["not_recorded"]


def test_traffic_counts_what_operators_read_and_write():
    left, right = torch.rand(10, 20), torch.rand(20, 30)
    with Traffic() as traffic:
        (left @ right).T.reshape(-1)
    # the product, and the copy that its transpose needs
    assert traffic.bytes == 4 * (200 + 600 + 300) + 4 * 2 * 300


def test_spans_are_covered_once():
    assert covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5
    assert covered([]) == 0


def test_a_pool_repeats_a_few_images():
    pool = Repeated(40, (50, 70))
    assert pool.image(39).shape == (50, 70, 3) and pool.mask(0).shape == (50, 70)
    assert len({pool.key(i) for i in range(40)}) == 40
    assert (pool.image(1) == pool.image(33)).all() and (pool.image(1) != pool.image(2)).any()


def test_a_page_without_figures_says_what_is_left(tmp_path):
    assert "Not measured yet: checks, camvid." in page(tmp_path, ["checks", "camvid"], {})
    assert [duration(s) for s in (0.0123, 1.02, 99, 468, 8280)] == ["12.3 ms", "1.02 s", "99 s", "7.8 min", "2.3 h"]
    assert set(SECTIONS) == {piece.name for piece in gpu.PIECES}


def test_seeds_that_are_not_complete_are_shown_and_gone_on_with(tmp_path, monkeypatch):
    scores = [dict.fromkeys(MEASURES, 0.5)] * 2
    row = {"size": "48x64", "epochs": 1, "batch": 4, "dense": scores, "points": scores, "device": "cpu"}
    (tmp_path / SEEDS).write_text(json.dumps([row]))
    text = page(tmp_path, ["equivalence"], {})
    assert "## equivalence, so far" in text and "1 seeds, 48x64" in text and "Not measured yet: equivalence" in text
    monkeypatch.setattr("benchmarks.gpu_runs.exit_code", lambda command, end, stdout: 0)
    names = ("data", "weights", "device", "encoder", "batch", "equivalence_epochs", "equivalence_size", "minutes")
    for seeds, complete in ((2, False), (1, True)):
        given = argparse.Namespace(**dict.fromkeys(names, "x"), state=tmp_path, equivalence_seeds=seeds)
        assert (equivalence(given, 0.0) is not None) == complete


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), None),
        (("--weights", "elsewhere/w.bin"), None),
        (("--encoder", "resnet18"), "was begun with --encoder mobilenetv2_100: give that, or another --state"),
        (("--batch", "8"), "was begun with --batch 4"),
        (("--split", "test"), "was begun with --split val"),
        (("--weights", "none"), "was begun with --weights w.bin"),
        (("--", "--seed", "1"), "was begun with words after -- left out"),
    ],
)
def test_pieces_of_one_state_are_made_with_the_same_arguments(more, said, tmp_path, monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(gpu, "follow", lambda piece, arguments, end: begun.append(piece.name))
    words = ["gpu", "--data", "x", "--weights", "w.bin", "--state", str(tmp_path), "--only", "checks"]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 3
    monkeypatch.setattr(sys, "argv", [*words, *more])
    if said is None:
        assert gpu.main() == 3 and begun == ["checks"] * 2
        return
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert said in capsys.readouterr().err and begun == ["checks"]


def test_a_recipe_s_split_is_that_of_its_run(tmp_path, monkeypatch):
    record = {f"{phase}_seconds": 1.0 for phase in ("train", "acquire", "evaluate")}
    record |= {"split": "val", "device": "cpu", "decode": "dense", "pixels_per_image": 10, "miou": 0.5}
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "rounds.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    monkeypatch.setattr("benchmarks.gpu_runs.camvid.go_on", lambda run, words, end: 0)
    given = {"data": "x", "weights": "none", "encoder": ENCODER, "split": "test", "device": "cpu", "more": []}
    figures = recipe(argparse.Namespace(**given, state=tmp_path), 0.0)
    assert figures is not None and figures["split"] == "val"
