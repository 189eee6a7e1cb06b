"""The hooks are called in a real run, and say how it stands."""

import json
from pathlib import Path

from alseg.testing import tiny_run

import my_piece


def test_a_run_says_how_it_stands(tmp_path):
    run = tiny_run(tmp_path / "run", plugins=[Path(my_piece.__file__)])  # as --plugin FILE, installed or not
    found = json.loads((run / my_piece.FILE).read_text())
    last = json.loads((run / "rounds.jsonl").read_text().splitlines()[-1])
    assert found == {"state": "finished", "round": last["round"], "miou": last["miou"]}


def test_each_round_is_told(tmp_path):
    my_piece.run_started(folder=str(tmp_path), settings={})
    assert json.loads((tmp_path / my_piece.FILE).read_text()) == {"state": "running"}
    my_piece.round_finished(folder=str(tmp_path), record={"round": 3, "miou": None})
    assert json.loads((tmp_path / my_piece.FILE).read_text()) == {"state": "running", "round": 3, "miou": None}
    my_piece.run_stopped(folder=str(tmp_path), reason="waiting", message="Two answers are missing.")
    found = json.loads((tmp_path / my_piece.FILE).read_text())
    assert found == {"state": "waiting", "message": "Two answers are missing."}
