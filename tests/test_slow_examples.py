"""The examples, run as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, write_camvid

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_papers_camvid_line_in_pieces(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    for name in ("", "annot"):
        (data / f"val{name}").rename(data / f"test{name}")
    other = write_camvid(tmp_path / "other", seed=3)
    for name in ("", "annot"):
        (other / f"val{name}").rename(data / f"val{name}")
    small = [word for word in SMALL if word not in ("--weights", "none")]
    tiny = [*small, "--first-pixels", "10", "--pixels-per-round", "10", "--budget", "30", "-o", "train.epochs=1"]
    command = [sys.executable, EXAMPLES / "paper" / "camvid.py", "--data", data, "--weights", "none"]
    calls, packed = 0, tmp_path / "state.tar.gz"
    for calls in range(1, 12):
        state = tmp_path / f"state{calls}"  # each call on a fresh machine
        more = ["--unpack", packed] if packed.exists() else []
        words = [*command, "--state", state, "--pack", packed, "--minutes", "0.6", *more, "--", *tiny]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        assert done.returncode in (0, 3), done.stderr
        if done.returncode == 0:
            break
    page = (state / "camvid.md").read_text()
    assert "| 20 | 0 |" in page
    assert "| all | 0 |" in page
    assert "50.8" in page
