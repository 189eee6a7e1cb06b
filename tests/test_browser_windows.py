"""The page in windows of many sizes."""

from __future__ import annotations

import pytest
from annotator import served
from browser import photos, picture, ready, settings
from conftest import CHROMIUM
from test_human import TINY

import alseg
from alseg_human.server import stop_page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]
SIZES = ((667, 375), (640, 360), (568, 320), (683, 384), (390, 844), (360, 640), (400, 420), (1366, 768))


def test_classes_and_the_pixels_place_are_in_sight_in_every_window(chromium, tmp_path):
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        for width, height in SIZES:
            page = chromium.new_page(viewport={"width": width, "height": height})
            page.goto(str(client.base_url))
            ready(page)
            page.evaluate(
                "document.querySelector('#place .file').textContent = 'a_name_as_a_camera_writes_it_000019_left'"
            )
            picture(page, f"window-{width}x{height}")
            classes, actions = (page.locator(part).bounding_box() for part in ("#class-list", "#actions"))
            assert classes["height"] >= 90 and classes["y"] + classes["height"] <= actions["y"] + 6, (width, height)
            page.locator("#class-list button").first.click(trial=True, timeout=1000)
            right = """() => {
                const range = document.createRange();
                range.selectNode(document.getElementById("place").lastChild);
                return range.getBoundingClientRect().right;
            }"""
            assert page.evaluate(right) <= width, (width, height)
            assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            page.keyboard.press("Shift+H")
            assert page.evaluate("document.getElementById('help').scrollTop") == 0
            page.close()
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_the_mark_of_a_tiny_image_is_round_its_pixel(page, tmp_path):
    given = {"dataset": "folder", "dataset.data": str(photos(tmp_path / "photos", 2, (4, 4)))}
    given |= {"dataset.classes": "a,b", "oracle": "human", **TINY, "first_pixels": 2, "budget": 2}
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        ready(page)
        picture(page, "tiny-image")
        scale = int(page.inner_text("#zoom").rstrip(" %")) / 100
        assert scale > 100
        radius = page.evaluate("scale => import('/page/marks.js').then(marks => marks.clearRadius(scale))", scale)
        assert scale / 2 < radius < scale
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()
