"""The page in a real browser: which keys and clicks it takes, and what it says of those that it does not."""

from __future__ import annotations

import json

import pytest
from annotator import served
from browser import press, ready, settings, state
from conftest import CHROMIUM
from test_run import lines

import alseg
from alseg_human.server import stop_page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]


@pytest.fixture
def labelling(page, tmp_path):
    """The page of a run whose first question is on the screen, and its journal."""
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        ready(page)
        yield page, tmp_path / "run" / "journal.jsonl"
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_a_key_that_strikes_twice_answers_once(labelling):
    page, journal = labelling
    first = press(page, "2")
    for key in ("1", "?"):
        before = ready(page)
        page.keyboard.press(key)
        ready(page, other_than=before)
        page.keyboard.press(key)
        assert "the same key" in page.inner_text("#toast")
    page.wait_for_timeout(300)
    assert len(lines(journal)) == 3 and ready(page) != first
    page.keyboard.press("?")
    page.wait_for_function("() => fetch('/api/state').then(r => r.json()).then(s => s.progress.done === 4)")
    before = ready(page)
    press(page, "1")
    press(page, "2")  # another key is taken at once
    assert ready(page) != before and len(lines(journal)) == 6


def test_an_answer_says_which_pixel_was_seen(labelling):
    page, _ = labelling
    for key in ("1", "?"):
        item = state(page)["queue"][0]
        with page.expect_request("**/api/*") as sent:
            press(page, key)
        body = json.loads(sent.value.post_data)
        assert (body["item"], body["y"], body["x"]) == (item["item"], item["y"], item["x"])
