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


def test_threads_may_evaluate_while_others_train(tmp_path: Path) -> None:
    """A model's fast copy is made by torch.fx, which looks at what the whole process calls."""
    small = {"model.encoder": "test_resnet.r160_in1k", "model.weights": "none", "model.channels": 8, "size": "64x64"}
    settings = small | {"train.epochs": 1, "train.batch_size": 4, "rounds": 3, "device": "cpu", "report": False}
    settings |= {"dataset.train_images": 8, "dataset.val_images": 8, "dataset.side": 64}

    def scores(folder: Path, seed: int) -> list[float]:
        return [record["miou"] for record in alseg.run(settings | {"seed": seed}, out=folder).rounds]

    alone = [scores(tmp_path / f"alone-{seed}", seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda seed: scores(tmp_path / f"together-{seed}", seed), range(3))) == alone


def test_threads_may_load_one_package(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from .inner import register_acquirers\n")
    inner = (
        "import time\nfrom alseg import hookimpl\ntime.sleep(0.05)\n@hookimpl\ndef register_acquirers(register): ...\n"
    )
    (tmp_path / "mine" / "inner.py").write_text(inner)
    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda _: load_plugins(tmp_path / "mine" / "__init__.py"), range(9)))
    assert [plugin.error for registry in loaded for plugin in registry.plugins if plugin.error] == []


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
