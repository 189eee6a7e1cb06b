"""Fixtures: a registry, the real command line, and a tiny CamVid on disk."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from PIL import Image

from alseg.cli.app import run_cli
from alseg.plugins import Registry, load_plugins

torch.set_num_threads(1)  # the suite runs in several processes
logging.getLogger("PIL").setLevel(logging.WARNING)

# A network that trains in a moment.
SMALL = (
    *("--encoder", "test_resnet.r160_in1k", "--weights", "none", "--size", "64x64", "--device", "cpu"),
    *("-o", "model.channels=8", "-o", "train.epochs=1", "-o", "train.batch_size=4", "-o", "report=false"),
)

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
)


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_plugins()


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the real command line in this process."""

    def call(*words: object) -> Outcome:
        capsys.readouterr()
        code = run_cli([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


def write_camvid(
    root: Path, train: int = 6, val: int = 3, size: tuple[int, int] = (64, 64), seed: int = 0, test: int = 0
) -> Path:
    """A folder in CamVid's layout: four grey-coded classes in vertical bands, a void border."""
    random = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), *([("test", test)] if test else [])):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        for i in range(count):
            edges = np.sort(random.integers(4, size[1] - 4, 3))
            mask = np.digitize(np.arange(size[1]), edges)[None, :].repeat(size[0], 0).astype(np.uint8)
            image = np.stack([mask * 60 + 20, 200 - mask * 40, mask * 30], -1) + random.integers(0, 20, (*size, 3))
            mask[:2] = 11
            Image.fromarray(image.astype(np.uint8)).save(root / split / f"{split}{i:02}.png")
            Image.fromarray(mask).save(root / f"{split}annot" / f"{split}{i:02}.png")
    return root


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    return write_camvid(tmp_path / "camvid")


def named_pipe(path: Path, content: bytes = b"") -> None:
    """A pipe in a file's place, of which whoever opens it reads the content, so that a test of it ends in any case."""

    def feed() -> None:
        while path.exists():
            with path.open("wb") as pipe:
                pipe.write(content)

    os.mkfifo(path)
    threading.Thread(target=feed, daemon=True).start()


def one_sentence(outcome, *words: str, code: int = 2) -> None:
    """The exit code; on stderr a single sentence that holds the words, and nothing on stdout."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    said = outcome.err.strip()
    assert said.startswith("alseg: ")
    assert "\n" not in said, "more than one line"
    assert said.endswith(".")
    assert "Something went wrong" not in said
    assert len(re.sub(r"/\S+", "", said)) < 300, "too long to be read"
    for word in words:
        assert word in said


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[..., Path]:
    """Write a plugin file."""

    def write(text: str, name: str = "my_piece.py") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text))
        return path

    return write


@pytest.fixture
def refused(cli, tmp_path):
    """Run words that must be refused; nothing new may lie beside the run's folder afterwards."""
    runs = tmp_path / "runs"
    runs.mkdir()

    def call(words: list[object], *expected: str, out: Path = runs / "run") -> None:
        before = sorted(path.name for path in runs.iterdir())
        one_sentence(cli(*words, "--out", out), *expected)
        assert sorted(path.name for path in runs.iterdir()) == before, "something was left behind"

    return call


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    made = chromium.new_page(viewport={"width": 1366, "height": 768})
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    made.complaints = complaints
    yield made
    made.close()
    # what a lost connection or a map that is not there makes the browser say is no fault of the page
    assert not [c for c in complaints if "Failed to load resource" not in c]
