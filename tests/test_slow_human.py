"""Real processes that a person answers: stopped, killed, out of disk, and gone on with."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from annotator import answer_all, by_masks, post
from conftest import SMALL, write_camvid
from test_human import classes_of, folder_of, labels
from test_slow_runs import small_disk  # noqa: F401

import alseg

pytestmark = pytest.mark.slow
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # as this process, with which labels are compared
PIXELS = ("--first-pixels", 3, "--pixels-per-round", 3, "--budget", 6)


started: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _nothing_stays():
    yield
    while started:
        started.pop().kill()


class Process:
    """The command line in a process of its own, its stderr in a file."""

    def __init__(self, place: Path, *words: object) -> None:
        self.log = place / f"log-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "alseg", *map(str, words)]
        # a suite that runs in the background ignores SIGINT, and its children would too
        heeding = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=heeding, env=ENVIRONMENT)
        started.append(self.process)

    def client(self) -> httpx.Client:
        """Of the page, once its address is printed."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            found = re.search(r"http://\S+", self.log.read_text())
            if found:
                return httpx.Client(base_url=found.group(), timeout=30)
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def ends(self, code: int, *words: str) -> None:
        assert self.process.wait(120) == code, self.log.read_text()
        for word in words:
            assert word in self.log.read_text()
        assert "Traceback" not in self.log.read_text()


@pytest.fixture
def data(tmp_path) -> Path:
    return write_camvid(tmp_path / "camvid")


def words(data: Path, run: Path) -> list[object]:
    given = ["run", "--dataset", "camvid", "--data", data, "--oracle", "human", "--no-browser", *PIXELS, *SMALL]
    return [*given, "--out", run]


def settings(data: Path) -> dict[str, object]:
    from test_human import TINY

    pixels = {"first_pixels": 3, "pixels_per_round": 3, "budget": 6, "void": "ask"}
    return {"dataset": "camvid", "dataset.data": str(data), **TINY, **pixels}


def test_ctrl_c_ends_the_waiting_and_annotate_goes_on(tmp_path, data):
    run, name_of = tmp_path / "run", by_masks(folder_of(settings(data)), classes_of(settings(data)))
    first = Process(tmp_path, *words(data, run))
    with first.client() as client:
        state = client.get("/api/state").json()
        for _ in range(4):
            item = state["queue"][0]
            name = name_of(item)
            given = {"item": item["item"]} | ({"class": name} if name else {})
            state = post(client, "answer" if name else "unsure", **given)
        first.process.send_signal(signal.SIGINT)
    first.ends(3, "Round 0 waits for 14 of 18 answers", f"`alseg annotate {run}`", f"`alseg resume {run}`")
    assert not (run / ".writer").exists()
    second = Process(tmp_path, "annotate", run, "--no-browser")
    with second.client() as client:
        assert client.get("/api/state").json()["progress"]["done"] == 4
        answer_all(client, name_of, rounds=1)
    second.ends(0, "Round 0 is answered: 18 pixels")
    third = Process(tmp_path, "resume", run, "--no-browser")
    with third.client() as client:
        answer_all(client, name_of)
    third.ends(0, "mIoU")
    alseg.run(settings(data), out=tmp_path / "truth")
    assert labels(run) == labels(tmp_path / "truth")


def test_a_server_killed_at_any_key_loses_none_before_it(tmp_path, data):
    """kill -9 ten times in one round: what was acknowledged is there, and nothing is asked twice."""
    run, name_of = tmp_path / "run", by_masks(folder_of(settings(data)), classes_of(settings(data)))
    process = Process(tmp_path, *words(data, run), "--no-wait")
    process.ends(3)
    acknowledged: list[str] = []
    for kill in range(8):
        process = Process(tmp_path, "annotate", run, "--no-browser")
        with process.client() as client:
            state = client.get("/api/state").json()
            assert state["progress"]["done"] == len(acknowledged)
            for _ in range(1 + kill % 3):
                item = state["queue"][0]
                name = name_of(item)
                given = {"item": item["item"]} | ({"class": name} if name else {})
                state = post(client, "answer" if name else "unsure", **given)
                acknowledged.append(item["item"])
            os.kill(process.process.pid, signal.SIGKILL)
            process.process.wait()
    assert len(acknowledged) == len(set(acknowledged)) == 15
    process = Process(tmp_path, "resume", run, "--no-browser")
    with process.client() as client:
        answer_all(client, name_of)
    process.ends(0)
    alseg.run(settings(data), out=tmp_path / "truth")
    assert labels(run) == labels(tmp_path / "truth")


def test_a_full_disk_keeps_the_question(tmp_path, data, small_disk):  # noqa: F811
    """What cannot be written counts as not answered; once there is room, it goes on."""
    run = tmp_path / "run"
    Process(tmp_path, *words(data, run), "--no-wait").ends(3)
    moved = shutil.copytree(run, small_disk / "run")
    process = Process(tmp_path, "annotate", moved, "--no-browser")
    with process.client() as client:
        item = client.get("/api/state").json()["queue"][0]["item"]
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while file.write(b" " * 4096):
                pass
        given = {"item": item, "class": "sky", "seconds": 1}
        replies = [client.post("/api/answer", json=given) for _ in range(60)]
        reply = next(reply for reply in replies if reply.status_code != 200)
        assert reply.status_code == 500 and "No space left on device" in reply.json()["error"]
        assert client.get("/api/state").json()["queue"][0]["item"] == item
        filler.unlink()
        assert post(client, "answer", **given)["progress"]["done"] == 1
        process.process.send_signal(signal.SIGINT)
    process.ends(3)
    assert (moved / "journal.jsonl").read_bytes().count(b"\n") == 1
