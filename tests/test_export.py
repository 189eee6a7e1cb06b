"""A run's model in files that load without alseg."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, write_camvid

import alseg
from alseg.cli.app import run_cli
from alseg.exporting import _check


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    data = write_camvid(root / "camvid")
    words = ["run", "--dataset", "camvid", "--data", data, *SMALL, "--rounds", "1", "--out", root / "run"]
    assert run_cli([*map(str, words)]) == 0
    return root / "run"


ELSEWHERE = {
    "pt2": """
import sys, json, numpy, torch
extra = {"classes.json": ""}
model = torch.export.load(sys.argv[1], extra_files=extra).module()
facts = json.loads(extra["classes.json"])
logits = model(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy()
""",
    "onnx": """
import sys, json, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
facts = json.loads(session.get_modelmeta().custom_metadata_map["classes.json"])
logits = session.run(None, {"images": numpy.load(sys.argv[2])})[0]
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ELSEWHERE)
def test_an_exported_model_works_without_alseg(run, tmp_path, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra alseg[onnx] is not installed")
    path = tmp_path / f"model.{suffix}"
    command = [sys.executable, "-m", "alseg", "export", str(run), "--to", str(path), "--json"]  # nothing is warm there
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": str(path)}
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.save(tmp_path / "images.npy", (image.transpose(2, 0, 1)[None] / 255).astype(np.float32))
    code = ELSEWHERE[suffix] + (
        "assert not any(name.split('.')[0] == 'alseg' for name in sys.modules)\n"
        "numpy.save(sys.argv[3], logits.argmax(1)[0])\nassert facts['classes'][0] == 'sky'\n"
    )
    words = [sys.executable, "-c", code, path, tmp_path / "images.npy", tmp_path / "mask.npy"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (np.load(tmp_path / "mask.npy") == alseg.Segmenter(run, device="cpu").segment(image).mask).mean() > 0.999


REFUSED = {
    "another kind of file": (["--to", "model.bin"], "ends in .pt2 or .onnx"),
    "no folder": (["--to", "nowhere/model.pt2"], "There is no folder"),
    "no such round": (["--to", "model.pt2", "--round", "4"], "round 4"),
    "no size": (["--to", "model.pt2", "--size", "tiny"], "--size"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_exported_is_said(cli, run, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, expected = REFUSED[case]
    outcome = cli("export", run, *words)
    assert outcome.code == 2
    assert expected in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_exists_is_not_written_over(cli, run, tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"mine")
    outcome = cli("export", run, "--to", tmp_path / "model.pt2")
    assert outcome.code == 2
    assert "model.pt2 exists: give another --to" in outcome.err
    assert (tmp_path / "model.pt2").read_bytes() == b"mine"


def test_a_model_takes_no_room_among_temporary_files(cli, run, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    outcome = cli("export", run, "--to", tmp_path / "model.pt2")
    assert (outcome.code, outcome.err) == (0, "")
    assert torch.export.load(tmp_path / "model.pt2").module()(torch.zeros(1, 3, 64, 64)).shape == (1, 11, 64, 64)


def test_another_output_is_no_export():
    model = torch.nn.Conv2d(3, 2, 1)
    _check(Path("m.pt2"), model, lambda images: model(images) + 1e-5, (8, 8))
    with pytest.raises(alseg.AlsegError, match="other logits"):
        _check(Path("m.pt2"), model, lambda images: model(images) + 0.1, (8, 8))
