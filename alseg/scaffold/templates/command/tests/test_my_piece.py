"""The command counts a real run's labels."""

import subprocess
import sys

import pytest
import typer
from alseg.testing import tiny_run
from typer.testing import CliRunner

import my_piece


@pytest.fixture
def app():
    made = typer.Typer()
    my_piece.register_commands(made)
    return made


def test_it_counts_labels(app, tmp_path):
    run = tiny_run(tmp_path / "run")
    outcome = CliRunner().invoke(app, [str(run)])
    assert outcome.exit_code == 0
    assert int(outcome.output) == len((run / "labels.jsonl").read_text().splitlines()) > 0


def test_alseg_has_it():
    found = subprocess.run([sys.executable, "-m", "alseg", "my-piece", "--help"], capture_output=True, text=True)
    assert "how many labels" in found.stdout, found.stderr
