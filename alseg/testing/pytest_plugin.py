"""The kit's fixtures for pytest, which finds this module by its entry point; `-p alseg.testing.pytest_plugin` else.

Nothing heavy is imported before a fixture is used.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from alseg.testing.tiny_images import TinyDataset
    from alseg.testing.tiny_models import TinyModel
    from alseg.values import PoolBatch


@pytest.fixture
def alseg_tiny_dataset() -> TinyDataset:
    """Four training images and two to validate on, of 64x64, in memory."""
    from alseg.testing import tiny_dataset

    return tiny_dataset()


@pytest.fixture
def alseg_tiny_folder(tmp_path: Path) -> Path:
    """The same images as PNG files in a folder."""
    from alseg.testing import write_tiny_dataset

    return write_tiny_dataset(tmp_path / "tiny-images")


@pytest.fixture
def alseg_tiny_model() -> TinyModel:
    """A model of three convolutions for three classes, in evaluation mode, the same each time."""
    import torch

    from alseg.engine.device import seeded
    from alseg.testing import tiny_model

    with seeded(torch.device("cpu"), 0, 0, "initial weights"):
        return tiny_model().eval()


@pytest.fixture(scope="session")
def alseg_tiny_run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two rounds, made once for all tests, which leave it as it is."""
    from alseg.testing import tiny_run

    return tiny_run(tmp_path_factory.mktemp("alseg") / "tiny-run")


@pytest.fixture
def alseg_tiny_run(alseg_tiny_run_once: Path, tmp_path: Path) -> Path:
    """A copy of that folder, of a test's own."""
    return Path(shutil.copytree(alseg_tiny_run_once, tmp_path / "tiny-run"))


@pytest.fixture
def alseg_pool_batch() -> PoolBatch:
    """Two images of 6x8 with three classes and a known prediction; `pool_batch` makes others."""
    from alseg.testing import pool_batch

    return pool_batch()
