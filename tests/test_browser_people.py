"""The page with a person whom it must know: blind questions, names, two people at once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from annotator import answer_all, post, served
from browser import picture, press, ready, settings, state, strike
from conftest import CHROMIUM
from test_run import lines

import alseg
from alseg_human.server import stop_page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]


def test_a_blind_question_stays_blind_when_another_comes_before_it(page, tmp_path):
    def pressed() -> str | None:
        return page.get_attribute("#toggle-prediction", "aria-pressed")

    with served(settings(tmp_path, rounds=2) | {"trust.blind": 0.5}, tmp_path / "run") as (client, work):
        answer_all(client, lambda _: "sky", rounds=1)
        page.goto(str(client.base_url))
        ready(page)
        queue = state(page)["queue"]
        last = next(k for k, (a, b) in enumerate(pairwise(queue)) if b["blind"] and not a["blind"])
        for number in range(last + 1):
            if number == last:
                page.click("#toggle-prediction")
                assert pressed() == "true"
            press(page, "1")
        shown = ready(page)
        assert shown == queue[last + 1]["item"] and pressed() == "false"
        before = page.inner_text("#progress")
        post(client, "undo")  # by the same person, at another page
        page.wait_for_function("before => document.querySelector('#progress').innerText !== before", arg=before)
        assert ready(page) == shown and not state(page)["queue"][0]["blind"]
        assert pressed() == "false"
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_a_name_that_is_refused_is_asked_for_again(page, tmp_path):
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        page.goto(f"{client.base_url}?who=a%01b")
        page.wait_for_selector("#name[open]")
        assert "A name has 60 letters at most" in page.inner_text("#banner")
        page.fill("#name-input", "ann")
        page.keyboard.press("Enter")
        ready(page)
        assert press(page, "1") and state(page)["progress"]["done"] == 1
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()
    assert [event["who"] for event in lines(tmp_path / "run" / "journal.jsonl")] == ["ann"]


def test_a_page_answers_in_the_name_that_it_was_opened_with(chromium, tmp_path):
    """Whatever name another tab of the browser gives, and until another one is confirmed."""
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        context = chromium.new_context(viewport={"width": 1100, "height": 700})
        carl, dora = context.new_page(), context.new_page()
        for page, who in ((carl, "carl"), (dora, "dora")):
            page.goto(f"{client.base_url}?who={who}")
            ready(page)
            page.goto(str(client.base_url))
            ready(page)
        press(carl, "1")
        assert dora.inner_text("#open-name") == "You: dora", "remembered, and so said"
        dora.click("#open-name")
        dora.fill("#name-input", "do")
        dora.keyboard.press("Escape")
        press(dora, "1")
        dora.click("#open-name")
        dora.fill("#name-input", "eve")
        dora.keyboard.press("Enter")
        dora.wait_for_function("() => document.getElementById('open-name').textContent === 'You: eve'")
        press(dora, "2")
        context.close()
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()
    assert [event["who"] for event in lines(tmp_path / "run" / "journal.jsonl")] == ["carl", "dora", "eve"]


def test_who_waits_for_somebody_else_is_told_so_once(page, tmp_path):
    with served(settings(tmp_path) | {"trust.overlap": 1.0}, tmp_path / "run") as (client, work):
        client.headers["x-alseg-who"] = "ann"
        while queue := client.get("/api/state").json()["queue"]:
            post(client, "answer", item=queue[0]["item"], **{"class": "sky"})
        page.goto(f"{client.base_url}?who=ann")
        page.wait_for_selector("#undo-last")
        picture(page, "others")
        text = page.inner_text("body").replace(page.inner_text("#live"), "")
        assert page.inner_text("#waiting-title") == "Nothing to answer now" and "being prepared" not in text
        assert text.count("must be answered by another person") == 1
        page.click("#undo-last")
        ready(page)
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_a_page_whose_token_is_none_any_more_says_so(page, tmp_path):
    with served(settings(tmp_path), tmp_path / "run", host="0.0.0.0") as (client, work):
        address = f"http://127.0.0.1:{client.base_url.port}/"
        page.goto(f"{address}?{client.base_url.query.decode().rstrip('/')}&who=ann")
        asked = ready(page)
        cookies = page.context.cookies()
        page.context.clear_cookies()
        page.wait_for_function("() => document.getElementById('banner').innerText.includes('token')")
        assert page.evaluate("document.body.dataset.ready") == "false"
        page.context.add_cookies(cookies)
        assert ready(page) == asked
        page.wait_for_function("() => document.getElementById('banner').hidden")
        page.context.clear_cookies()
        page.goto(address)
        assert page.inner_text("p") == "This needs the address with its token, as it was printed."
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_what_is_taken_back_without_a_connection_is_taken_back_when_it_is_there_again(page, tmp_path):
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        page.goto(f"{client.base_url}?who=ann")
        press(page, "1")
        press(page, "2")
        for key in ("Backspace", "Space"):
            page.context.route("**/api/**", lambda route: route.abort())
            page.keyboard.press(key)
            page.wait_for_function("() => !document.getElementById('banner').hidden")
            bob = {"x-alseg-who": "bob"}
            item = client.get("/api/state", headers=bob).json()["queue"][0]["item"]
            assert client.post("/api/answer", headers=bob, json={"item": item, "class": "sky"}).status_code == 200
            before = ready(page) if page.evaluate("document.body.dataset.ready === 'true'") else None
            page.context.unroute("**/api/**")
            page.wait_for_function("() => document.getElementById('banner').classList.contains('good')")
            ready(page, other_than=before)
        stop_page(tmp_path / "run")
    with pytest.raises(alseg.AlsegError):
        work.done()
    events = [(event["event"], event["who"]) for event in lines(tmp_path / "run" / "journal.jsonl")]
    acts = [("answered", "ann")] * 2 + [("answered", "bob"), ("retracted", "ann")]
    assert events == [*acts, ("answered", "bob"), ("skipped", "ann")]


def test_two_people_at_two_browsers(chromium, tmp_path):
    """Each gives a name, is shown questions of their own, and one question goes to both."""
    given = settings(tmp_path) | {"trust.overlap": 1.0}
    with served(given, tmp_path / "run") as (client, work):
        pages = {}
        for who in ("ann", "Jürgen"):
            page = chromium.new_context(viewport={"width": 1100, "height": 700}).new_page()
            page.goto(str(client.base_url))
            page.wait_for_selector("#name[open]")
            picture(page, "name")
            page.fill("#name-input", who)
            page.keyboard.press("Enter")
            page.wait_for_function("who => document.getElementById('open-name').textContent.includes(who)", arg=who)
            pages[who] = page
        first = {who: ready(page) for who, page in pages.items()}
        assert first["ann"] != first["Jürgen"]
        for number in range(12):
            for page in pages.values():
                before = ready(page)
                strike(page, "1")
                if number < 11:
                    ready(page, other_than=before)
        work.done()
        for page in pages.values():
            page.context.close()
    events = lines(tmp_path / "run" / "journal.jsonl")
    assert {event["who"] for event in events} == {"ann", "Jürgen"} and len(events) == 24
    assert all("," in line["who"] for line in lines(tmp_path / "run" / "labels.jsonl"))
