"""Chromium for tests of the page, and what they do there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_camvid
from PIL import Image
from test_human import TINY

SLOWNESS = float(os.environ.get("ALSEG_TEST_SLOWNESS", "1"))
PICTURES = os.environ.get("ALSEG_TEST_PICTURES")  # a folder that takes screenshots


def settings(place: Path, **more: Any) -> dict[str, Any]:
    data = write_camvid(place / "camvid", train=4)
    pixels = {"first_pixels": 3, "pixels_per_round": 3, "rounds": 1}
    return {"dataset": "camvid", "dataset.data": str(data), "oracle": "human", **TINY, **pixels} | more


def photos(place: Path, count: int, size: tuple[int, int]) -> Path:
    place.mkdir()
    random = np.random.default_rng(0)
    for i in range(count):
        small = Image.fromarray(random.integers(0, 256, (30, 40, 3)).astype(np.uint8))
        small.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(place / f"{i:04}.jpg", quality=80)
    return place


def ready(page, *, other_than: str | None = None) -> str:
    """The item that is asked, once its pixel is on the screen."""
    page.wait_for_function(
        "before => document.body.dataset.ready === 'true' && document.body.dataset.item !== before",
        arg=other_than,
        timeout=30_000 * SLOWNESS,
    )
    return page.evaluate("document.body.dataset.item")


def press(page, key: str) -> str:
    """A key that leads to another item; that item."""
    before = ready(page)
    strike(page, key)
    return ready(page, other_than=before)


def strike(page, key: str) -> None:
    """A key, no sooner than the page takes the last one again."""
    if key == getattr(page, "struck", None):
        page.wait_for_timeout(220)
    page.struck = key
    page.keyboard.press(key)


def state(page) -> dict[str, Any]:
    return page.evaluate("fetch('/api/state').then(reply => reply.json())")


def picture(page, name: str) -> None:
    if PICTURES:
        page.screenshot(path=str(Path(PICTURES) / f"{name}.png"))


def letter(page, name: str) -> str:
    """The key that the page shows beside a class."""
    text = page.locator("#class-list button", has_text=re.compile(rf"^\W*\w*\W*{name}|{name}")).first.inner_text()
    found = re.findall(r"\b[A-Za-z]\b", text.replace(name, " "))
    return found[0].lower()
