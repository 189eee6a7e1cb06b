"""Runs from Python, where much else goes on in the same process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import alseg
from alseg.plugins import load_plugins
from alseg.testing.tiny import NAME, PLUGIN

SETTINGS = {"dataset": NAME, "model": NAME, "recipe": NAME, "rounds": 2, "device": "cpu"}
STOPS = """\
from alseg import hookimpl

@hookimpl
def round_finished(folder, record):
    raise KeyboardInterrupt
"""


def mious(folder: Path, seed: int = 0) -> list[float]:
    result = alseg.run(SETTINGS | {"seed": seed}, out=folder, registry=load_plugins([PLUGIN]))
    return [record["miou"] for record in result.rounds]


def test_threads_give_what_one_after_the_other_gives(tmp_path: Path) -> None:
    alone = [mious(tmp_path / f"alone-{seed}", seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: mious(tmp_path / f"together-{seed}", seed), range(4)))
    assert together == alone


MODES: dict[str, Callable[[], Any]] = {
    "without gradients": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_what_torch_was_told_before_changes_nothing(tmp_path: Path, mode: str) -> None:
    expected = mious(tmp_path / "plain")
    with MODES[mode]():
        assert mious(tmp_path / "inside") == expected


def test_ctrl_c_is_no_exception_that_a_loop_over_seeds_goes_on_after(tmp_path: Path) -> None:
    plugin = tmp_path / "stops.py"
    plugin.write_text(STOPS)
    registry = load_plugins([PLUGIN, plugin])
    with pytest.raises(KeyboardInterrupt, match=r"resume .* goes on from the last phase") as stop:
        alseg.run(SETTINGS, out=tmp_path / "run", registry=registry)
    assert not isinstance(stop.value, Exception)
