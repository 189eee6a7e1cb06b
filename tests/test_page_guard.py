"""Attempts to get in: each is refused with a sentence, logged, and the server goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from annotator import Working, answer_all, post, served
from conftest import write_camvid
from starlette.testclient import TestClient
from test_human import TINY

import alseg
from alseg.answering import Attendance, OpenRound
from alseg.errors import UserMistake
from alseg.testing.open_rounds import open_round
from alseg.testing.tiny_images import TinyImages
from alseg.values import Classes
from alseg_human.desk import Desk
from alseg_human.pictures import Pictures
from alseg_human.routes import application

ORIGIN = "http://evil.example"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page on loopback, and its run's folder."""
    place = tmp_path_factory.mktemp("page")
    with served(settings_of(place), place / "run") as (client, _):
        yield client, place / "run"
        stop(place / "run")


def settings_of(place: Path) -> dict[str, object]:
    data = write_camvid(place / "camvid", train=4)
    return {"dataset": "camvid", "dataset.data": str(data), "oracle": "human", **TINY, "first_pixels": 3, "budget": 3}


def stop(run: Path) -> None:
    from alseg_human.server import stop_page

    stop_page(run)


def journal(run: Path) -> bytes:
    path = run / "journal.jsonl"
    return path.read_bytes() if path.exists() else b""


def item(client: httpx.Client) -> str:
    return client.get("/api/state").json()["queue"][0]["item"]


def refused(page, status: int, word: str, *, method: str = "POST", path: str = "/api/answer", **request) -> None:
    client, run = page
    before, logged = journal(run), (run / "page.log").read_text() if (run / "page.log").exists() else ""
    reply = client.request(method, path, **request)
    assert reply.status_code == status, reply.text
    assert word in reply.json()["error"] and reply.json()["error"].endswith(".")
    assert journal(run) == before
    assert str(status) in (run / "page.log").read_text()[len(logged) :]
    assert client.get("/api/state").status_code == 200, "the server goes on"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": ORIGIN},
        {"origin": "null"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "localhost.evil.example:8420"},
    ],
    ids=str,
)
def test_other_pages_and_other_names_are_refused(page, headers):
    good = {"item": item(page[0]), "class": "sky"}
    refused(page, 403, "refused" if "host" not in headers else "this machine", json=good, headers=headers)
    refused(page, 403, "", method="GET", path="/api/image/0", headers=headers)


def test_a_form_of_another_page_cannot_answer(page):
    good = f'{{"item": "{item(page[0])}", "class": "sky"}}'
    refused(page, 415, "application/json", content=good, headers={"content-type": "text/plain"})
    refused(page, 415, "application/json", data={"item": "x"})


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "no JSON"),
        (b"\xff\xfe", 400, "no JSON"),
        (b"[" * 10_000, 400, "no JSON"),
        (b"[]", 400, "no JSON object"),
        (b"{}", 400, "item must be a text"),
        (b'{"item": 3, "class": "sky"}', 400, "item must be a text"),
        (b'{"item": "r00-0000000", "class": null}', 400, "class must be a text"),
        (b'{"item": "r00-0000000", "class": "sky", "seconds": -1}', 400, "seconds"),
        (b'{"item": "r00-0000000", "class": "sky", "seconds": NaN}', 400, "seconds"),
        (b'{"item": "r00-0000000", "class": "sky", "seconds": "1"}', 400, "seconds"),
        (b'{"item": "r00-0000000", "class": "no such class"}', 409, "is no class"),
        (b'{"item": "r00-9999999", "class": "sky"}', 409, "does not wait"),
        (b'{"item": "../../run.toml", "class": "sky"}', 409, "does not wait"),
        (b'{"item": "' + b"x" * 2000 + b'", "class": "sky"}', 400, "item must be a text"),
        (b" " * 1_000_000, 413, "bytes at most"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bodies_that_are_none(page, body, status, word):
    refused(page, status, word, content=body, headers={"content-type": "application/json"})


def test_a_long_body_without_a_length_is_cut(page):
    def chunks():
        for _ in range(100):
            yield b" " * 10_000

    refused(page, 413, "bytes at most", content=chunks(), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    "path", ["/page/..%2f..%2fplugin.py", "/page/%2e%2e/server.py", "/page/plugin.py", "/run.toml", "/api/image/..%2f1"]
)
def test_no_file_beyond_the_pages_own_is_read(page, path):
    assert page[0].get(path).status_code in (400, 404)


@pytest.mark.parametrize("number", ["4", "-1", "999999999999", "1e0", "²", "0x1", " 1"])
def test_no_image_beyond_the_datasets_is_read(page, number):
    refused(page, 400, "There is no image", method="GET", path=f"/api/image/{number}")


def test_other_methods_are_refused(page):
    refused(page, 405, "", method="PUT", path="/api/answer", content=b"")
    refused(page, 405, "", method="GET", path="/api/answer")


def test_an_answer_of_another_runs_page_is_refused(page):
    client, _ = page
    given = {"json": {"item": item(client), "class": "Sky"}}
    refused(page, 409, "another run", headers={"x-alseg-run": "of a run that was served here before"}, **given)
    mine = client.get("/api/state").json()["run_id"]
    refused(page, 409, "no class", headers={"x-alseg-run": mine}, json={"item": item(client), "class": "Mars"})


@pytest.mark.parametrize("name", ["a\u2028b", "gr\udcfcn"], ids=ascii)
def test_images_of_any_name_are_asked_about(monkeypatch, name):
    monkeypatch.setattr(TinyImages, "key", lambda images, i: f"{name}{i}")
    with open_round(picks=False, asks_class=True) as round, program(round) as client:
        shown = client.get("/api/state").json()["queue"][0]["name"]
    assert shown == f"{name}0".encode("utf-8", "replace").decode()


@contextlib.contextmanager
def program(round: OpenRound):
    """A program at the page of an open round, without a server."""
    desk = Desk(round, beyond=False)
    desk.open(round)
    yield TestClient(application(desk, print))


def test_nothing_can_be_picked_that_has_a_pixel(page):
    refused(page, 409, "does not wait for a pick", path="/api/pick", json={"item": item(page[0]), "y": 1, "x": 1})


def test_a_picture_of_what_no_model_saw_is_not_there(page):
    assert page[0].get("/api/prediction/0").status_code == 404


def test_answers_carry_headers_that_forbid_frames_and_foreign_scripts(page):
    for path in ("/", "/api/state", "/api/image/0", "/nothing"):
        headers = page[0].get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_half_a_request_and_noise_do_no_harm(page):
    client, _ = page
    address = urlsplit(str(client.base_url))
    for noise in (b"\x16\x03\x01\x02", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST /api/answer HTTP/1.1\r\n\r\n"):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(noise)
    assert client.get("/api/state").status_code == 200


def test_a_right_answer_is_taken_after_all_that(page):
    client, run = page
    asked = item(client)
    state = post(client, "answer", item=asked, **{"class": "sky"}, seconds=0.7)
    assert state["progress"]["done"] == 1
    assert post(client, "answer", item=asked, **{"class": "sky"}, seconds=0.7)["progress"]["done"] == 1, "sent twice"
    assert journal(run).count(b"\n") == 1
    same = client.post("/api/answer", json={"item": asked, "class": "road"})
    assert same.status_code == 409
    origin = str(client.base_url).rstrip("/")
    allowed = {"origin": origin, "sec-fetch-site": "same-origin"}
    assert client.post("/api/undo", json={}, headers=allowed).status_code == 200


def test_beyond_loopback_every_request_needs_the_token(tmp_path):
    with served(settings_of(tmp_path), tmp_path / "run", host="0.0.0.0") as (client, _):
        token = dict(part.split("=") for part in client.base_url.query.decode().split("&"))["token"].rstrip("/")
        root = f"http://127.0.0.1:{client.base_url.port}"
        assert len(token) >= 32
        for given in ({}, {"token": "wrong"}, {"token": token[:-1]}):
            for path in ("/", "/api/state", "/api/image/0", "/page/index.html"):
                assert httpx.get(root + path, params=given).status_code == 401
        assert httpx.get(root + "/api/state", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.get(root + "/api/state", headers={"cookie": "alseg-1=x; \x01"}).status_code in (400, 401)
        with httpx.Client(base_url=root) as browser:
            opened = browser.get("/", params={"token": token})
            assert opened.status_code == 200
            assert "HttpOnly" in opened.headers["set-cookie"] and "SameSite=Strict" in opened.headers["set-cookie"]
            assert browser.get("/api/state").status_code == 200, "the cookie is enough"
            ours = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            for cookies in (
                f'prefs={{"a": 1}}; {ours}',
                f"a[b]=1; {ours}",
                f"{ours}; n=x y",
                f"flag; expires=5; {ours}",
            ):
                reply = httpx.get(root + "/api/state", headers={"cookie": cookies})
                assert reply.status_code == 200, "other servers of the host have cookies too"
            foreign = {"origin": ORIGIN}
            assert browser.post("/api/undo", json={}, headers=foreign).status_code == 403
        assert (tmp_path / "run" / ".page-token").stat().st_mode & 0o077 == 0
        stop(tmp_path / "run")


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        how = Attendance(browser=False, port=taken.getsockname()[1])
        work = Working(lambda: alseg.run(settings_of(tmp_path), out=tmp_path / "run", attendance=how))
        with pytest.raises(UserMistake, match="cannot be served"):
            work.done()
    how = Attendance(browser=False, host="no.such.host.invalid")
    with pytest.raises(UserMistake, match="no address"):
        Working(lambda: alseg.resume(tmp_path / "run", attendance=how)).done()


@pytest.mark.parametrize("origin", ["http://[", "http://]", "//", "http://127.0.0.1:x"])
def test_an_origin_that_is_none_is_refused(page, origin):
    refused(page, 403, "refused", json={"item": item(page[0]), "class": "sky"}, headers={"origin": origin})


@pytest.mark.parametrize("name", ["\ud800", "a\nforged line", "\x00"])
def test_an_item_that_is_no_line_is_refused(page, name):
    body = json.dumps({"item": name, "class": "sky"}).encode()
    refused(page, 409, "does not wait", content=body, headers={"content-type": "application/json"})
    assert "\nforged line" not in (page[1] / "page.log").read_text()


@pytest.mark.parametrize("name", ["\u067e\u06cc\u0627\u062f\u0647\u200c\u0631\u0648", "lamp\u00a0post"], ids=ascii)
def test_classes_of_any_writing_can_be_answered(monkeypatch, name):
    with open_round(picks=False, asks_class=True) as round, program(round) as client:
        monkeypatch.setattr(round, "classes", Classes((name, "sky", "disc"), 255))
        asked = item(client)
        assert post(client, "answer", item=asked, **{"class": name})["progress"]["done"] == 1
        assert [(label.item, label.name) for label in round.answered()] == [(asked, name)]


def test_pages_may_come_while_they_are_counted(monkeypatch):
    class Meanwhile(float):
        """A span of time that a request arrives in, whenever one is compared with it."""

        def __gt__(self, other: float) -> bool:
            desk.state("", "another page")
            return super().__gt__(other)

    with open_round(picks=False, asks_class=True) as round:
        desk = Desk(round, beyond=False)
        monkeypatch.setattr("alseg_human.desk.WATCHING", Meanwhile(5))
        desk.state("", "a page"), desk.state("", "a second page")
        assert desk.pages() >= {"a page", "a second page"}


def test_one_image_is_decoded_once_however_many_ask(tmp_path):
    class Slow:
        reads = 0

        def image(self, i: int) -> np.ndarray:
            self.reads += 1
            time.sleep(0.05)
            return np.zeros((10, 10, 3), np.uint8)

    images = Slow()
    pictures = Pictures(images)
    threads = [threading.Thread(target=pictures.image, args=(0,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert images.reads <= 2


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost", "::1"])
def test_any_loopback_address_is_served_under_its_name(tmp_path, host):
    try:
        with served(settings_of(tmp_path), tmp_path / "run", host=host) as (client, _):
            assert client.get("/api/state").status_code == 200
    except UserMistake:
        pytest.skip(f"there is no {host} here")


def test_a_run_that_fails_leaves_no_page_behind(tmp_path, monkeypatch):
    """And the next call serves anew."""
    import alseg.experiment

    given = settings_of(tmp_path)

    def broken(*_, **__):
        raise alseg.AlsegError("The training broke.")

    monkeypatch.setattr(alseg.experiment, "train_round", broken)
    with served(given, tmp_path / "run") as (client, work):
        session = client.get("/api/state").json()["session"]
        answer_all(client, lambda _: "sky", rounds=1)
        with pytest.raises(alseg.AlsegError, match="broke"):
            work.done()
        # another test's page may have the port by now
        with contextlib.suppress(httpx.HTTPError):
            assert client.get("/api/state").json()["session"] != session
