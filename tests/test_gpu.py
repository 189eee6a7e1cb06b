"""The same code on a GPU."""

from __future__ import annotations

import pytest
import torch
from test_run import camvid_run, fingerprint, lines

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


def test_a_run_on_the_gpu(cli, camvid, tmp_path):
    outcome = camvid_run(cli, camvid, tmp_path / "run", "--device", "cuda")
    assert outcome.code == 0
    assert lines(tmp_path / "run" / "rounds.jsonl")[-1]["device"].startswith("cuda")


def test_deterministic_runs_ask_the_same(cli, camvid, tmp_path):
    for name in ("first", "second"):
        camvid_run(cli, camvid, tmp_path / name, "--device", "cuda", "--deterministic")
    assert fingerprint(tmp_path / "first") == fingerprint(tmp_path / "second")
