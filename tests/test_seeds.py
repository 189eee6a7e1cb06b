"""Comparisons over seeds keep what was measured."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import pytest

from benchmarks.seeds import collected


def one(failed: Path, seed: int) -> dict[str, float]:
    """Seed 0 fails; the one beside it ends a little later."""
    if seed == 0:
        failed.touch()
        raise RuntimeError("seed 0 cannot")
    while not failed.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    return {"miou": 0.5}


def test_a_seed_that_fails_takes_no_other_s_measures_along(tmp_path):
    results = tmp_path / "seeds.json"
    arguments = argparse.Namespace(size="1x1", epochs=1, batch=8, weights="none", minutes=1, jobs=2, seeds=2)
    arguments.results = results
    with pytest.raises(RuntimeError, match="seed 0 cannot"):
        collected(arguments, {}, partial(one, tmp_path / "failed"))
    rows = json.loads(results.read_text(encoding="utf-8"))
    assert [(row["seed"], row["miou"]) for row in rows] == [(1, 0.5)]
