"""The page in a real browser: which keys and clicks it takes, and what it says of those that it does not."""

from __future__ import annotations

import json

import pytest
from annotator import answer_all, served
from browser import photos, press, ready, settings, state
from conftest import CHROMIUM
from test_human import TINY
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


def test_what_was_ignored_stays_to_be_read_beside_the_answer(labelling):
    page, journal = labelling
    page.evaluate(
        """() => {
            const before = window.fetch;
            window.fetch = async (path, options) => {
                if (path === "/api/answer") await new Promise((resolve) => setTimeout(resolve, 400));
                return before(path, options);
            };
        }"""
    )
    before = ready(page)
    page.keyboard.press("1")
    page.keyboard.press("2")
    ready(page, other_than=before)
    assert page.inner_text("#toast") == "sky. Ignored: the next pixel was not shown yet."
    page.wait_for_timeout(1000)
    press(page, "2")
    assert "Ignored" not in page.inner_text("#toast") and len(lines(journal)) == 2


def test_a_filter_ends_with_the_answer(page, tmp_path):
    names = [f"kind {letter}" for letter in "abcdefghijklmnopqrstuvw"]
    given = {"dataset": "folder", "dataset.data": str(photos(tmp_path / "photos", 2, (40, 60)))}
    given |= {"dataset.classes": ",".join(names), "oracle": "human", **TINY, "first_pixels": 2, "budget": 2}
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        before = ready(page)
        page.fill("#filter", "kind q")
        page.locator("#class-list button:visible").click()
        ready(page, other_than=before)
        assert page.input_value("#filter") == "" and page.locator("#class-list button:visible").count() == len(names)
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_toggles_and_the_opacity_leave_the_keys_and_the_settings_alone(page, tmp_path):
    """A click on the slider's own place, and toggles where a question is blind."""
    with served(settings(tmp_path, rounds=2) | {"trust.blind": 0.5}, tmp_path / "run") as (client, work):
        answer_all(client, lambda _: "sky", rounds=1)
        page.goto(str(client.base_url))
        ready(page)
        seen, focused = set(), "document.activeElement.id === 'opacity'"
        for key in ("1", "2", "3", "4") * 3:
            blind = state(page)["queue"][0]["blind"]
            if not blind and False not in seen:
                page.click("#toggle-prediction")
                page.click("#opacity")
                assert page.input_value("#opacity") == "50" and not page.evaluate(focused)
                page.focus("#opacity")
                page.keyboard.press("ArrowRight")
                page.keyboard.press("ArrowRight")
                assert page.input_value("#opacity") == "70" and page.evaluate(focused)
            if blind:
                assert page.get_attribute("#toggle-guess", "aria-disabled") == "true"
                page.click("#toggle-guess", force=True)
                assert "asked without the model" in page.inner_text("#toast")
            else:
                assert page.get_attribute("#toggle-guess", "aria-pressed") == "true", "as it was before"
            seen.add(blind)
            if state(page)["progress"]["done"] == 11:
                break
            press(page, key)
        assert seen == {True, False}
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()
