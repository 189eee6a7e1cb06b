"""A comparison whose oracle answers another time waits with exit code 3, and the same command goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from broken_runs import TINY
from conftest import one_sentence

PLUGIN = """
from pathlib import Path

from alseg import Answer, Answers, hookimpl
from alseg.compare.jobs import carry_out
from alseg.progress import Quiet

class Later:
    sees_truth = False

    def __init__(self, run, file):
        self.run, self.file, self.asked = run, file, []

    def ask(self, questions):
        self.asked += questions

    def collect(self):
        said = self.file.read_text().split()
        there = [q for q in self.asked if q.item[:3] in said]
        return Answers([Answer(q.item, "sky", "ann") for q in there], len(there) == len(self.asked))

def later(run, file: Path = Path("said")):
    print("hello")
    return Later(run, file)

def here(jobs, logs, watch):
    for job in jobs:
        if any(name == job.after for name in left):
            watch.finished(job, f"{job.after} failed")
            continue
        watch.started(job)
        try:
            carry_out(job, Quiet())
            watch.finished(job, None)
        except Exception as error:
            left.append(job.name)
            watch.finished(job, str(error))

left = []

@hookimpl
def register_oracles(register):
    register("later", later)

@hookimpl
def register_executors(register):
    register("here", lambda: here)
"""
GRID = ("compare", "--dataset", "alseg-tiny", "--model", "alseg-tiny", "--acquirers", "margin", "--selectors", "topk")
WAITING = "wait for answers: "
GO_ON = ". The same command goes on when they are in.\n"


@pytest.fixture
def compared(cli, tmp_path, monkeypatch):
    """Compare, with what the oracle says now; by the plugin's executor unless words say otherwise."""
    monkeypatch.chdir(tmp_path)
    Path("later.py").write_text(PLUGIN)

    def call(said, *words):
        Path("said").write_text(said)
        grid = (*GRID, "--rounds", 2, "--oracle", "later", "-o", f"oracle.file={tmp_path / 'said'}")
        words = words or ("--executor", "here")
        return cli(*TINY, "--plugin", "later.py", *grid, *words, "--out", "comparison")

    return call


def test_a_first_round_is_waited_for_by_all_that_begin_with_it(compared):
    for executor in ("local", "here"):
        outcome = compared("", "--executor", executor)
        assert outcome.code == 3, outcome.err
        *lines, last = outcome.err.splitlines(keepends=True)
        assert last.startswith("alseg: 3 runs wait for answers: first round, seed=0,") and last.endswith(GO_ON)
        assert "; random,uniform,seed=0; margin,topk,seed=0." in last
        assert "waits: Round 0 waits for 8 of 8 answers.\n" in "".join(lines)
        assert "resume" not in outcome.err and "failed" not in outcome.err
        assert not Path("comparison", "runs").exists()


def test_the_same_command_goes_on_to_the_end(compared):
    later = compared("r00", "--executor", "here", "--json")
    assert later.code == 3, later.err
    assert later.err.endswith(f"alseg: 2 runs {WAITING}random,uniform,seed=0; margin,topk,seed=0{GO_ON}")
    facts = json.loads(later.out)
    assert facts["failed"] == {} and len(facts["summary"]) == 2 and Path(facts["comparison"]).exists()
    assert set(facts["waiting"].values()) == {"Round 1 waits for 8 of 8 answers."}
    assert compared("r00 r01").code == 0


def test_a_run_that_fails_goes_before_those_that_wait(compared):
    assert compared("r00").code == 3
    Path("comparison", "runs", "margin,topk,seed=0", "journal.jsonl").write_text("no event\n")
    outcome = compared("r00")
    outcome.out, lines = "", outcome.err.splitlines()
    outcome.err = lines[-1]
    one_sentence(outcome, "1 of the runs failed, the first of them margin,topk,seed=0: ", "1 wait for answers", code=1)


@pytest.mark.slow
def test_a_ray_cluster_is_waited_on_and_gone_on_with(tmp_path):
    pytest.importorskip("ray", reason="the extra alseg[ray] is not installed")
    (tmp_path / "later.py").write_text(PLUGIN)
    grid = (*GRID, "--rounds", "1", "--oracle", "later", "-o", f"oracle.file={tmp_path / 'said'}")
    words = (*TINY, "--plugin", "later.py", *grid, "--executor", "ray", "--out", "comparison")
    for said, code in (("", 3), ("r00", 0)):
        (tmp_path / "said").write_text(said)
        command = [sys.executable, "-m", "alseg", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        if code:
            assert done.stderr.endswith(GO_ON) and "waits: Round 0 waits for 8 of 8 answers.\n" in done.stderr
    assert "1 round" in done.stderr
