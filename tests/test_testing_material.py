"""The kit's tiny datasets, models and runs, its fixtures, and what they load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import one_sentence
from test_startup import HEAVY, modules_after
from test_testing_kit import PAGE, REGISTRY, ROOT

import alseg.testing
from alseg.store import RunFolder
from alseg.testing import (
    pool_batch,
    tiny_dataset,
    tiny_run,
    write_tiny_dataset,
)
from alseg.testing.tiny import PLUGIN
from alseg.testing.tiny_runs import tiny_registry


def test_a_known_prediction_is_what_was_given():
    p = torch.tensor([[0.0, 1.0], [0.25, 0.75], [1.0, 0.0]]).T.view(1, 2, 1, 3)
    batch = pool_batch(p, candidates=[[[True, False, True]]])
    torch.testing.assert_close(batch.prediction.probabilities(), p)
    assert torch.equal(batch.prediction.probabilities()[..., [0, 2]], p[..., [0, 2]])
    assert batch.keys == ("a",) and batch.size == (1, 3) and batch.candidates.tolist() == [[[True, False, True]]]
    one, other = batch.prediction.samples(2)
    assert not torch.equal(one, other)
    for sample in (one, other):
        assert torch.equal(sample[..., [0, 2]], p[..., [0, 2]]), "what is certain stays so"
    assert batch.prediction.embedding().shape == (1, 4, 1, 2)
    assert torch.equal(batch.prediction.term("any"), batch.prediction.entropy())
    again = pool_batch(torch.cat([p, p]), keys=["b", "a"])
    assert torch.equal(batch.noise("x")[0], again.noise("x")[1])
    assert not torch.equal(batch.noise("x"), pool_batch(p, seed=1).noise("x"))


def test_the_tiny_folder_holds_the_tiny_dataset(tmp_path):
    options = {"train_images": 3, "same_size": False}
    folder = write_tiny_dataset(tmp_path / "images", **options)
    piece = REGISTRY.find("dataset", "folder")
    read, made = piece.build(piece.resolve({"data": folder})), tiny_dataset(**options)
    assert read.classes == made.classes and read.splits == made.splits == ("train", "val")
    for split in made.splits:
        ours, theirs = made.images(split), read.images(split)
        for i in range(len(ours)):
            assert np.array_equal(ours.image(i), theirs.image(i)) and np.array_equal(ours.mask(i), theirs.mask(i))
            assert theirs.key(i).endswith(ours.key(i))
    assert made.images("train").image(1).shape == (72, 56, 3)


def test_the_tiny_dataset_has_every_class_and_void():
    images = tiny_dataset().images("train")
    for i in range(len(images)):
        assert set(np.unique(images.mask(i))) == {0, 1, 2, 255}


def test_a_tiny_run_is_a_run(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # files below are told relative to it
    folder = tiny_run(tmp_path / "run", acquirer="entropy", train__epochs=1, **{"selector": "topk"})
    run = RunFolder(folder)
    settings = run.settings()
    assert len(run.rounds()) == 2 and run.rounds()[1]["miou"] is not None
    assert (settings["acquirer"]["name"], settings["selector"]["name"]) == ("entropy", "topk")
    assert settings["train"]["epochs"] == 1
    outcome = cli("--plugin", PLUGIN, "resume", folder, "--rounds", 3, "--budget", 6)
    assert outcome.code == 0, outcome.err
    assert len(run.rounds()) == 3
    segmenter = alseg.Segmenter(folder, registry=tiny_registry())
    assert segmenter.segment(tiny_dataset().images("val").image(0)).mask.shape == (64, 64)
    one_sentence(cli("resume", folder, "--rounds", 4), "There is no", f"--plugin {PLUGIN}")


def test_importing_the_kit_and_its_fixtures_loads_nothing_heavy():
    loaded = modules_after("import alseg.testing, alseg.testing.pytest_plugin; dir(alseg.testing)")
    assert not loaded & HEAVY
    assert not loaded & {"alseg.plugins", "alseg.cli", "alseg.api"}


def test_the_tiny_pieces_are_registered_without_torch():
    loaded = modules_after("from alseg.testing.tiny_runs import tiny_registry; tiny_registry()")
    assert not loaded & (HEAVY - {"numpy"})


def test_all_that_the_kit_exports_is_there():
    for name in alseg.testing.__all__:
        assert getattr(alseg.testing, name) is not None
    with pytest.raises(AttributeError):
        alseg.testing.check_nothing  # noqa: B018


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    """pytest in a process of its own, with the kit's fixtures and no other plugin."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "alseg.testing.pytest_plugin"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )


FIXTURES = """\
def test_run(alseg_tiny_run, alseg_tiny_run_once):
    (alseg_tiny_run / "rounds.jsonl").unlink()
    assert (alseg_tiny_run_once / "rounds.jsonl").read_text().count("\\n") == 2

def test_folder(alseg_tiny_folder, alseg_tiny_dataset):
    names = [alseg_tiny_dataset.images("train").key(i) + ".png" for i in range(4)]
    assert sorted(path.name for path in (alseg_tiny_folder / "train").iterdir()) == names

def test_model(alseg_tiny_model, alseg_pool_batch):
    import torch
    logits = alseg_tiny_model.decode(alseg_tiny_model.encode(torch.zeros(1, 3, 64, 64)))
    assert logits.shape == (1, 3, 16, 16)
    assert alseg_pool_batch.prediction.probabilities().shape == (2, 3, 6, 8)
"""


def test_the_pages_example_and_the_fixtures_work_in_a_pytest_of_their_own(tmp_path):
    plugin, example = re.findall(r"```python title=[^\n]+\n(.+?)```", PAGE, re.DOTALL)
    (tmp_path / "rivals.py").write_text(plugin)
    (tmp_path / "test_rivals.py").write_text(example)
    (tmp_path / "test_fixtures.py").write_text(FIXTURES)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = example.count("def test_") + 1 + FIXTURES.count("def test_")  # one is of two numbers of classes
    assert f"{wanted} passed" in done.stdout


def test_pytest_finds_the_fixtures_by_an_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"alseg": "alseg.testing.pytest_plugin"}


def test_fixtures_are_listed_by_the_page():
    import alseg.testing.pytest_plugin as plugin

    names = [name for name in vars(plugin) if name.startswith("alseg_")]
    assert len(names) == 6 and all(f"`{name}`" in PAGE for name in names)
