"""Runs of a single-file plugin in which one piece misbehaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import one_sentence

from alseg.hints import command
from alseg.testing.tiny import PLUGIN

TINY = ("--plugin", PLUGIN)
BASE = ("run", "--dataset", "alseg-tiny", "--precision", "float32")
RUN = (*BASE, "--model", "alseg-tiny", "--rounds", 1)
HEAD = """\
import torch
from torch import nn
from alseg import Answer, Answers, Classes, hookimpl
from alseg.testing.tiny_images import TinyDataset
from alseg.testing.tiny_models import TinyModel

"""


@pytest.fixture
def told(cli, tmp_path) -> Callable[..., str]:
    """Run a plugin's text with words; the one sentence that is said, which ends the command with `code`.

    Where the run has begun by then, a line after it says how it goes on.
    """

    def call(text: str, *words: object, code: int = 1) -> str:
        file = tmp_path / "mine.py"
        file.write_text(HEAD + text)
        outcome = cli(*TINY, "--plugin", file, *words, "--out", tmp_path / "run")
        lines = [line for line in outcome.err.splitlines() if not line.lower().startswith("round ")]
        if (tmp_path / "run" / "run.toml").exists():
            again = command([PLUGIN, file], "resume", tmp_path / "run")
            assert lines.pop() == f"alseg: {again} goes on from the last phase."
        outcome.err = "\n".join(lines)
        one_sentence(outcome, f" of {file}", code=code)
        return outcome.err.strip().removeprefix("alseg: ").replace(str(file), "FILE")

    return call


def line_of(text: str, words: str) -> int:
    """The line of the plugin's file that has these words."""
    return next(number for number, line in enumerate((HEAD + text).splitlines(), 1) if words in line)


def journal(run: Path) -> str:
    """What was answered, as it lies on the disk."""
    path = run / "journal.jsonl"
    return path.read_text() if path.exists() else ""
