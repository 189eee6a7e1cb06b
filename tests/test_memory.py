"""The memory that images are kept in."""

from __future__ import annotations

import os

import pytest

from alseg.compare.local import environment
from alseg.config import resolve
from alseg.data import open_images
from alseg.engine import memory
from alseg.progress import Quiet

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.fixture
def limit(tmp_path, monkeypatch):
    """The container's limit as the second of two control groups says it; the first is not there."""
    path = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "none", path))
    return path


@pytest.mark.parametrize(
    ("said", "expected"), [("max\n", MACHINE), ("9223372036854771712\n", MACHINE), ("1000000\n", 1_000_000)]
)
def test_a_container_has_no_more_memory_than_its_limit(said, expected, limit):
    assert memory.physical_memory() == MACHINE
    limit.write_text(said, encoding="utf-8")
    assert memory.physical_memory() == expected


def test_processes_of_a_machine_share_the_memory_for_images(limit, registry, monkeypatch):
    settings = {"dataset.train_images": 8, "dataset.val_images": 4, "dataset.side": 64}
    limit.write_text(str(4 * 8 * 64 * 64 * 4), encoding="utf-8")  # of which a quarter holds 8 images and masks
    opened = resolve(registry, {}, settings)
    assert open_images(opened, Quiet()).pool.bytes == 8 * 64 * 64 * 4
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert open_images(opened, Quiet()).pool.bytes == 2 * 64 * 64 * 4
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    for name, value in environment(2, [], 0).items():  # a comparison's
        monkeypatch.setenv(name, value)
    assert open_images(opened, Quiet()).pool.bytes == 4 * 64 * 64 * 4
