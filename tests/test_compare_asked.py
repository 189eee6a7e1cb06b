"""What a run asked, as a comparison counts it."""

from __future__ import annotations

import json

from alseg.compare.asking import ask_once
from alseg.progress import Quiet
from alseg.store import RunFolder
from alseg.testing.tiny_runs import tiny_registry, tiny_run


def test_pixels_that_only_measure_are_none_that_were_chosen(tmp_path):
    whole = RunFolder(tiny_run(tmp_path / "whole", acquirer="margin", trust__audit=5)).rounds()[1]
    asked = tiny_run(tmp_path / "asked", acquirer="margin", trust__audit=5, rounds=1)
    ask_once(asked, tiny_registry(), Quiet())
    found = json.loads((asked / "asked.json").read_text())
    assert found == {name: whole[name] for name in found}
