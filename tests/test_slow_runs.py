"""Real runs: what the README promises, and a process killed at any instant."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL, write_camvid
from test_run import fingerprint, lines

pytestmark = pytest.mark.slow


def alseg(*words: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "alseg", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_the_default_run_learns(tmp_path):
    process = alseg("run", "--out", tmp_path / "run", "--json")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    scores = [row["miou"] for row in lines(tmp_path / "run" / "rounds.jsonl")]
    assert len(scores) >= 3
    assert scores[-1] - scores[0] >= 0.05, scores


def test_active_learning_beats_chance_on_the_default_dataset(tmp_path):
    finals = {}
    for acquirer, selector in (("margin", "topk-then-uniform"), ("random", "uniform")):
        out = tmp_path / acquirer
        process = alseg("run", "--acquirer", acquirer, "--selector", selector, "--out", out, "--seed", 1)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        finals[acquirer] = lines(out / "rounds.jsonl")[-1]["miou"]
    assert finals["margin"] > finals["random"] + 0.02, finals


def test_a_run_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    data = write_camvid(tmp_path / "camvid")
    words = ["--dataset", "camvid", "--data", data, *SMALL, "--first-pixels", 4, "--pixels-per-round", 2]
    words += ["--budget", 10, "-o", "train.epochs=6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = alseg("run", *words, "--out", tmp_path / "whole", env=environment)
    assert process.wait(timeout=300) == 0
    broken, chance, kills = tmp_path / "broken", random.Random(0), 0
    process = alseg("run", *words, "--out", broken, env=environment)
    while not (broken / "run.toml").exists():
        time.sleep(0.02)
    for _ in range(40):
        time.sleep(chance.uniform(0.0, 2.5))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        if len(lines(broken / "rounds.jsonl")) == 4 if (broken / "rounds.jsonl").exists() else False:
            break
        process = alseg("resume", broken, env=environment)
        while process.poll() is None and not (broken / ".writer").exists():
            time.sleep(0.02)
    else:
        assert process.wait(timeout=300) == 0
    assert kills >= 3
    assert alseg("resume", broken, env=environment).wait(timeout=300) == 0
    assert fingerprint(broken) == fingerprint(tmp_path / "whole")


def test_the_wheel_holds_plugins_types_and_entry_points(tmp_path):
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("alseg-*.whl")
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    for package in ("alseg", "alseg_pixelpick", "alseg_datasets"):
        assert (target / package / "py.typed").exists()
    listing = subprocess.run(
        [sys.executable, "-P", "-m", "alseg", "plugins", "--json"],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    names = {row["name"] for row in json.loads(listing.stdout)}
    assert {"margin", "topk-then-uniform", "camvid", "shapes", "deeplabv3plus", "ground-truth"} <= names
