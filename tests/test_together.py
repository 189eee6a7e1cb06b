"""Runs at once on one device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, write_camvid

from benchmarks import together

ROOT = Path(__file__).parent.parent
TINY = [word for word in SMALL if word not in ("--weights", "none", "--device", "cpu")]


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.together", "--weights", "none", "--device", "cpu", "--epochs", "1"]
    words = (*command, *words, "--", *TINY)
    return subprocess.run([str(word) for word in words], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_runs_at_once_are_timed_and_the_best_number_is_named(tmp_path):
    data, file = write_camvid(tmp_path / "camvid"), tmp_path / "rows.json"
    done = call("--data", data, "--runs", "1,2", "--json", file)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text())
    assert [row["runs"] for row in rows] == [1, 2]
    for row in rows:
        assert 0 < row["training_seconds"] < row["wall_seconds"]
        assert row["runs_an_hour"] == pytest.approx(3600 * row["runs"] / row["wall_seconds"])
    assert f"{together.best(rows)} at once serve best." in done.stdout


def test_a_run_that_fails_is_quoted(tmp_path):
    done = call("--data", tmp_path / "nowhere", "--runs", "2")
    assert done.returncode == 1
    said = done.stderr.strip()
    assert said.startswith("benchmarks.together: run 1 of 1 at once failed: alseg: There is no folder")
    assert "\n" not in said


def test_the_best_is_where_most_runs_end_in_an_hour():
    rows = [
        {"runs": k, "wall_seconds": w, "runs_an_hour": 3600 * k / w, "training_seconds": 1.0, "trainings_an_hour": 9.0}
        for k, w in ((1, 10), (2, 15), (4, 40))
    ]
    assert together.best(rows) == 2
    assert together.table(rows).count("|\n") == 5
