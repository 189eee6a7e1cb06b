"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from annotator import answer_all, by_masks, served
from browser import SLOWNESS, letter, photos, picture, press, ready, settings, state, strike
from conftest import CHROMIUM, write_camvid
from test_human import TINY, classes_of, folder_of, labels
from test_run import lines

import alseg
from alseg_human.server import stop_page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")]


def test_a_whole_round_by_keys_alone(page, tmp_path):
    given = settings(tmp_path)
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        first = ready(page)
        picture(page, "round-0")
        names = [entry["name"] for entry in state(page)["classes"]]
        second = press(page, "1")  # a digit
        assert state(page)["progress"]["done"] == 1
        third = press(page, letter(page, "road"))
        fourth = press(page, "?")
        assert press(page, "Backspace") == third
        assert press(page, "Backspace") == second
        assert press(page, "Backspace") == first
        assert state(page)["progress"]["done"] == 0
        assert press(page, "Space") == second, "asked again later"
        for key in ("2", "3", "?"):
            press(page, key)
        page.reload()
        assert state(page)["progress"]["done"] == 3 and ready(page) not in (first, second, third, fourth)
        for _ in range(8):
            press(page, "1")
        assert ready(page) == first, "the skipped one comes last"
        page.keyboard.press("4")
        work.done()
    made = {line["item"]: line["class"] for line in lines(tmp_path / "run" / "labels.jsonl")}
    assert len(made) == 12 and made[first] == names[3] and made[second] == names[1]
    assert sorted(made.values(), key=str).count("None") == 0 and list(made.values()).count(None) == 1
    seconds = [line["seconds"] for line in lines(tmp_path / "run" / "labels.jsonl")]
    assert all(0 < value < 30 for value in seconds)


def test_a_page_of_a_run_that_was_served_before_is_loaded_again(page, tmp_path):
    first, second = settings(tmp_path / "a"), settings(tmp_path / "b")
    with served(first, tmp_path / "a/run") as (client, work):
        page.goto(str(client.base_url))
        ready(page)
        port = client.base_url.port
        page.evaluate("window.before = true")
    with pytest.raises(alseg.AlsegError):
        work.done()
    with served(second, tmp_path / "b/run", port=port):
        page.wait_for_function("() => window.before === undefined", timeout=30_000 * SLOWNESS)
        ready(page)
        assert press(page, "1") and state(page)["progress"]["done"] == 1
        loaded = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
        assert any("/api/image/" in name and f"session={state(page)['session']}" in name for name in loaded)
        stop_page(tmp_path / "b/run")


def test_two_rounds_with_training_between_and_the_models_maps(page, tmp_path):
    given = settings(tmp_path, rounds=2) | {"train.epochs": 40}
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        for _ in range(11):
            press(page, "1")
        ready(page)
        strike(page, "1")
        page.wait_for_function("() => document.body.dataset.phase === 'training'", timeout=30_000 * SLOWNESS)
        picture(page, "training")
        page.wait_for_function("() => document.body.dataset.ready === 'true'", timeout=60_000 * SLOWNESS)
        item = state(page)["queue"][0]
        assert item["guess"] in page.inner_text("#question")
        for toggle in ("prediction", "utility", "points"):
            page.click(f"#toggle-{toggle}")
            assert page.get_attribute(f"#toggle-{toggle}", "aria-pressed") == "true"
        page.wait_for_timeout(1500)
        picture(page, "maps")
        press(page, "Enter")  # agrees
        for _ in range(10):
            press(page, "2")
        ready(page)
        strike(page, "2")
        page.wait_for_function("() => document.body.dataset.phase === 'finished'", timeout=60_000 * SLOWNESS)
        picture(page, "finished")
        work.done()
    second = [line for line in lines(tmp_path / "run" / "labels.jsonl") if line["round"] == 1]
    assert second[0]["class"] == item["guess"] and len(second) == 12


def annotated(tmp_path):
    """A run whose first round waits, and the process in which it is answered."""
    from test_slow_human import Process, words

    run, data = tmp_path / "run", write_camvid(tmp_path / "camvid", train=4)
    Process(tmp_path, *words(data, run), "--no-wait").ends(3)
    return run, Process(tmp_path, "annotate", run, "--no-browser")


def test_the_page_finds_the_server_again(page, tmp_path):
    """Killed in the middle and started again at the same port: nothing is lost and the page goes on by itself."""
    from test_slow_human import Process

    run, first = annotated(tmp_path)
    with first.client() as client:
        address = str(client.base_url)
    page.goto(address)
    for _ in range(3):
        press(page, "1")
    asked = ready(page)
    first.process.kill()
    first.process.wait()
    page.wait_for_function("() => !document.getElementById('banner').hidden", timeout=30_000 * SLOWNESS)
    picture(page, "lost")
    port = address.rstrip("/").rpartition(":")[2]
    second = Process(tmp_path, "annotate", run, "--no-browser", "--port", port)
    second.client().close()
    page.wait_for_function("() => document.getElementById('banner').hidden", timeout=30_000 * SLOWNESS)
    assert ready(page) == asked
    assert press(page, "2") != asked
    assert state(page)["progress"]["done"] == 4
    second.process.kill()


def test_the_last_answer_of_a_round_can_be_taken_back(page, tmp_path):
    with served(settings(tmp_path), tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        for _ in range(11):
            press(page, "1")
        last = ready(page)
        strike(page, "1")
        page.wait_for_function("() => document.body.innerText.includes('takes it back')")
        page.keyboard.press("Backspace")
        assert ready(page) == last
        strike(page, "1")
        page.click("#undo-last")
        assert ready(page) == last
        strike(page, "2")
        work.done()
    made = lines(tmp_path / "run" / "labels.jsonl")
    assert [line["class"] for line in made if line["item"] == last] == ["building"], "CamVid's second class"


def test_ctrl_c_is_said_on_the_page_which_goes_on_later(page, tmp_path):
    import signal

    from test_slow_human import Process

    run, first = annotated(tmp_path)
    with first.client() as client:
        address = str(client.base_url)
    page.goto(address)
    press(page, "1")
    asked = ready(page)
    first.process.send_signal(signal.SIGINT)
    page.wait_for_function("() => document.body.dataset.phase === 'stopped'", timeout=20_000 * SLOWNESS)
    assert "Stopped" in page.inner_text("#waiting")
    picture(page, "stopped")
    first.ends(3)
    second = Process(tmp_path, "annotate", run, "--no-browser", "--port", address.rstrip("/").rpartition(":")[2])
    second.client().close()
    assert ready(page) == asked
    second.process.kill()


def test_a_page_whose_round_is_answered_goes_on_with_the_next(page, tmp_path):
    from test_slow_human import Process

    run, first = annotated(tmp_path)
    with first.client() as client:
        address = str(client.base_url)
        page.goto(address)
        ready(page)
        answer_all(client, lambda item: "road", rounds=1)
    page.wait_for_function("() => document.body.dataset.phase === 'answered'", timeout=20_000 * SLOWNESS)
    assert "This round is answered" in page.inner_text("#waiting") and "All done" not in page.inner_text("#waiting")
    first.ends(0)
    second = Process(tmp_path, "resume", run, "--no-browser", "--port", address.rstrip("/").rpartition(":")[2])
    with second.client() as client:
        page.wait_for_function("() => document.body.dataset.ready === 'true'", timeout=60_000 * SLOWNESS)
        assert ready(page).startswith("r01")
        answer_all(client, lambda item: "road")
    page.wait_for_function("() => document.body.dataset.phase === 'finished'", timeout=20_000 * SLOWNESS)
    second.ends(0)


def test_pixels_are_picked_by_mouse_and_by_keys(page, tmp_path):
    given = settings(tmp_path, rounds=2, selector="human")
    with served(given, tmp_path / "run") as (client, work):
        answer_all(client, lambda item: "road", rounds=1)
        page.goto(str(client.base_url))
        page.wait_for_function("() => document.body.dataset.ready === 'true'", timeout=60_000 * SLOWNESS)
        item = state(page)["queue"][0]
        assert item["y"] is None
        page.wait_for_timeout(500)
        picture(page, "picker")
        box = page.locator("#picture").bounding_box()
        page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_function("() => fetch('/api/state').then(r => r.json()).then(s => s.queue[0].y !== null)")
        picked = state(page)["queue"][0]
        assert picked["item"] == item["item"] and abs(picked["y"] - 32) <= 1 and abs(picked["x"] - 32) <= 1
        page.wait_for_function("() => document.body.dataset.ready === 'true'")
        press(page, "1")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_function("() => fetch('/api/state').then(r => r.json()).then(s => s.queue[0].y !== null)")
        assert state(page)["queue"][0]["item"] != item["item"]
        stop(tmp_path / "run", work)


def stop(run: Path, work: Any) -> None:
    from alseg_human.server import stop_page

    stop_page(run)
    with pytest.raises(alseg.AlsegError):
        work.done()


def test_a_large_photograph_and_forty_classes_on_a_narrow_screen(chromium, tmp_path):
    names = [f"class {i:02} with a rather long name" for i in range(40)]
    given = {"dataset": "folder", "dataset.data": str(photos(tmp_path / "photos", 2, (3000, 4000)))}
    given |= {"dataset.classes": ",".join(names), "oracle": "human", **TINY, "first_pixels": 2, "budget": 2}
    with served(given, tmp_path / "run") as (client, work):
        for size in ((360, 740), (1366, 768)):
            page = chromium.new_page(viewport={"width": size[0], "height": size[1]})
            page.goto(str(client.base_url))
            ready(page)
            picture(page, f"forty-{size[0]}")
            wider = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            assert not wider, "the page is wider than the screen"
            page.close()
        page = chromium.new_page(viewport={"width": 1366, "height": 768})
        page.goto(str(client.base_url))
        before = ready(page)
        page.locator("#class-list button", has_text=names[39]).click()
        ready(page, other_than=before)
        press(page, "3")
        assert [e["class"] for e in lines(tmp_path / "run" / "journal.jsonl")] == [names[39], names[2]]
        chord = page.locator("#class-list button", has_text=names[20]).locator(".chip").inner_text().strip().lower()
        assert re.fullmatch("[a-z]{2}", chord)
        before = ready(page)
        page.keyboard.press(chord[0])
        assert page.is_visible("#chord")
        page.keyboard.press("Shift+D")  # what is armed stays on the screen
        assert page.is_visible("#chord")
        page.keyboard.press("Space")
        after = ready(page, other_than=before)
        assert not page.is_visible("#chord")
        page.keyboard.press(chord[1])  # no half of an earlier chord is left to answer with
        page.keyboard.press("Escape")
        assert ready(page) == after
        page.keyboard.press(chord[0])
        page.keyboard.press(chord[1])
        ready(page, other_than=after)
        assert lines(tmp_path / "run" / "journal.jsonl")[-1]["class"] == names[20]
        page.close()
        stop(tmp_path / "run", work)


def test_from_key_to_the_next_pixel_in_fifty_milliseconds(page, tmp_path, capsys):
    """On loopback, with a thousand images, one question in each."""
    given = {"dataset": "folder", "dataset.data": str(photos(tmp_path / "photos", 1000, (360, 480)))}
    given |= {"dataset.classes": "a,b,c", "oracle": "human", **TINY, "first_pixels": 1, "budget": 1}
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        for number in range(210):
            press(page, str(1 + number % 3))
            page.wait_for_timeout(120)  # nobody is faster, and the next images are fetched meanwhile
        marks = page.evaluate(
            "performance.getEntriesByType('mark').filter(m => ['key', 'shown'].includes(m.name))"
            ".map(m => [m.name, m.startTime])"
        )
        stop(tmp_path / "run", work)
    spent = [b[1] - a[1] for a, b in pairwise(marks) if (a[0], b[0]) == ("key", "shown")][10:]
    assert len(spent) == 200
    median, worst = statistics.median(spent), sorted(spent)[int(0.99 * len(spent))]
    with capsys.disabled():
        print(f"\nfrom key to pixel: median {median:.1f} ms, 99 % within {worst:.1f} ms")
    assert median < 50 * SLOWNESS and worst < 150 * SLOWNESS


def test_a_person_at_the_browser_and_a_program_give_the_same(page, tmp_path):
    """Keys pressed by the masks: the labels of the ground truth."""
    given = settings(tmp_path)
    name_of = by_masks(folder_of(given), classes_of(given))
    with served(given, tmp_path / "run") as (client, work):
        page.goto(str(client.base_url))
        item = ready(page)
        for left in range(12, 0, -1):
            name = name_of(state(page)["queue"][0])
            strike(page, letter(page, name) if name else "?")
            item = ready(page, other_than=item) if left > 1 else item
        work.done()
    alseg.run(given | {"oracle": "ground-truth", "void": "ask"}, out=tmp_path / "truth")
    assert labels(tmp_path / "run") == labels(tmp_path / "truth")
