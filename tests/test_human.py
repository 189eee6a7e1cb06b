"""A person labels, played by a program at the page's HTTP interface."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from annotator import PATIENCE, Listening, Working, answer_all, by_masks, post, served
from conftest import write_camvid
from PIL import Image
from test_run import lines

import alseg
from alseg.answering import Attendance
from alseg.attending import annotate
from alseg.errors import UserMistake, Waiting
from alseg.plugins import load_plugins
from alseg.store import RunFolder

TINY = {
    "model.encoder": "test_resnet.r160_in1k",
    "model.weights": "none",
    "model.channels": 8,
    "size": "64x64",
    "device": "cpu",
    "train.epochs": 1,
    "report": False,
}


@pytest.fixture
def settings(camvid) -> dict[str, Any]:
    pixels = {"first_pixels": 2, "pixels_per_round": 2, "rounds": 2}
    return {"dataset": "camvid", "dataset.data": str(camvid), "oracle": "human", **TINY, **pixels}


def folder_of(settings: dict[str, Any]) -> Path:
    return Path(settings["dataset.data"]) / "trainannot"


def classes_of(settings: dict[str, Any]) -> tuple[str, ...]:
    return load_plugins().find("dataset", "camvid").build({"data": Path(settings["dataset.data"])}).classes.names


def labels(run: Path) -> list[tuple[Any, ...]]:
    return [
        tuple(line[key] for key in ("item", "image", "y", "x", "class", "round"))
        for line in lines(run / "labels.jsonl")
    ]


def test_a_program_at_the_page_gives_the_labels_of_the_ground_truth_oracle(settings, tmp_path):
    name_of = by_masks(folder_of(settings), classes_of(settings))
    with served(settings, tmp_path / "human") as (client, work):
        assert answer_all(client, name_of) == 24
        result = work.done()
    alseg.run(settings | {"oracle": "ground-truth", "void": "ask"}, out=tmp_path / "truth")
    assert labels(tmp_path / "human") == labels(tmp_path / "truth")
    assert result.rounds[-1]["labelled_pixels"] <= 24 and result.rounds[-1]["agreement"] is not None
    last = lines(tmp_path / "human" / "labels.jsonl")[-1]
    assert last["source"] == "human" and last["who"] and last["seconds"] == 0.5


def wait_for(client: httpx.Client, phase: str) -> None:
    end = time.monotonic() + PATIENCE
    while client.get("/api/state").json()["phase"] != phase:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_undo_skip_and_cannot_tell(settings, tmp_path):
    with served(settings | {"rounds": 1}, tmp_path / "run") as (client, work):
        first, second, third = client.get("/api/state").json()["queue"][:3]
        state = post(client, "skip", item=first["item"])
        assert state["queue"][0] == second and state["progress"]["skipped"] == 1
        state = post(client, "answer", item=second["item"], **{"class": "sky"}, seconds=1.25)
        assert state["queue"][0] == third and state["progress"]["done"] == 1
        state = post(client, "unsure", item=third["item"])
        assert state["progress"]["unsure"] == 1
        for expected in (third, second, first):  # to any depth, skips too
            state = post(client, "undo")
            assert state["queue"][0] | {"skips": 0} == expected
        assert state["progress"] == {
            "done": 0, "total": 12, "skipped": 0, "unsure": 0, "agreed": 0, "guessed": 0, "seconds": None
        }  # fmt: skip
        assert not state["can_undo"]
        assert client.post("/api/undo", json={}).status_code == 409
        post(client, "skip", item=first["item"])
        asked = []
        answer_all(client, lambda item: asked.append(item["item"]) or "sky")
        work.done()
    assert asked[-1] == first["item"] and len(asked) == 12
    kinds = [event["event"] for event in lines(tmp_path / "run" / "journal.jsonl")]
    assert kinds[:7] == ["skipped", "answered", "unsure", "retracted", "retracted", "retracted", "skipped"]


def test_an_act_whose_reply_was_lost_is_done_once_when_it_is_sent_again(settings, tmp_path):
    """Others answer meanwhile, or the round ends with it."""
    with served(settings, tmp_path / "run") as (client, work):
        bob = {"x-alseg-who": "bob"}
        post(client, "answer", item=client.get("/api/state").json()["queue"][0]["item"], **{"class": "sky"})
        for act in ("undo", "skip"):
            item = client.get("/api/state").json()["queue"][0]["item"]
            sent = {"act": f"{act}-of-mine", "item": item}
            post(client, act, **sent)
            other = client.get("/api/state", headers=bob).json()["queue"][0]["item"]
            client.post("/api/answer", headers=bob, json={"item": other, "class": "sky"})
            post(client, act, **sent)
        kinds = [event["event"] for event in lines(tmp_path / "run" / "journal.jsonl")]
        assert kinds == ["answered", "retracted", "answered", "skipped", "answered"]
        for who in (bob, {}):
            state = client.get("/api/state", headers=who).json()
            while state["queue"]:
                sent = {"item": state["queue"][0]["item"], "class": "sky", "act": f"answer-{state['progress']['done']}"}
                state = client.post("/api/answer", headers=who, json=sent).json()
        wait_for(client, "training")
        post(client, "answer", **sent)
        assert client.post("/api/answer", json=sent | {"act": "short"}).status_code == 400
        assert client.post("/api/answer", json=sent | {"act": "another-act"}).status_code == 409
        answer_all(client, lambda item: "sky")
        work.done()


def test_a_round_may_take_a_week(settings, tmp_path, cli):
    """Asked without a page, answered in two sittings of `annotate`, and resumed; the same as in one go."""
    run, name_of = tmp_path / "run", by_masks(folder_of(settings), classes_of(settings))
    with pytest.raises(Waiting, match=r"Round 0 waits for 12 of 12 answers. `alseg annotate .*run`"):
        alseg.run(settings, out=run, attendance=Attendance(wait=False))
    outcome = cli("resume", run, "--no-wait")
    assert outcome.code == 3 and "waits for 12 of 12" in outcome.err
    sitting(run, name_of, 5, complete=False)
    assert len(lines(run / "journal.jsonl")) == 5
    assert cli("resume", run, "--no-wait").code == 3
    moved = Path(settings["dataset.data"]).rename(tmp_path / "moved")
    assert "with --data" in cli("annotate", run).err
    settings = settings | {"dataset.data": str(moved)}
    name_of = by_masks(folder_of(settings), classes_of(settings))
    sitting(run, name_of, 7, complete=True, data=moved)
    outcome = cli("resume", run, "--no-wait")
    assert outcome.code == 3 and "Round 1 waits for 12 of 12" in outcome.err
    sitting(run, name_of, 12, complete=True)
    assert cli("resume", run, "--no-wait").code == 0
    outcome = cli("annotate", run)
    assert outcome.code == 2 and "asks nothing any more" in outcome.err
    alseg.run(settings | {"oracle": "ground-truth", "void": "ask"}, out=tmp_path / "truth")
    assert labels(run) == labels(tmp_path / "truth")


def sitting(run: Path, name_of: Any, count: int, *, complete: bool, data: Path | None = None) -> None:
    """Answer so many questions at the page of `annotate`, and leave it."""
    listening = Listening()
    folder = RunFolder(run)
    options = {"registry": load_plugins(), "attendance": Attendance(browser=False), "progress": listening}
    work = Working(lambda: annotate(folder, data=data, **options))
    with httpx.Client(base_url=listening.address(), timeout=30) as client:
        state = client.get("/api/state").json()
        for _ in range(count):
            item = state["queue"][0]
            name = name_of(item)
            given = {"item": item["item"]} | ({"class": name} if name else {})
            state = post(client, "answer" if name else "unsure", **given)
        if complete:
            work.done()
            return
        with pytest.raises(UserMistake, match="is being written by"):
            annotate(folder, registry=load_plugins())
    # a thread cannot be sent Ctrl-C: the process that serves is a test of its own
    from alseg_human.server import stop_page

    stop_page(run)
    with pytest.raises(alseg.AlsegError, match="has stopped"):
        work.done()


def test_a_person_picks_and_the_masks_answer(settings, tmp_path):
    picks = settings | {"oracle": "ground-truth", "selector": "human"}
    with served(picks, tmp_path / "run") as (client, work):
        state = client.get("/api/state").json()
        assert (state["round"], state["asks_class"], state["has_model"]) == (1, False, True)
        assert state["queue"][0]["y"] is None and state["progress"]["total"] == 12
        assert client.get(f"/api/prediction/{state['queue'][0]['image']}").headers["content-type"] == "image/png"
        taken = client.get("/api/points/0").json()[0]
        refused = client.post("/api/pick", json={"item": state["queue"][0]["item"], "y": taken["y"], "x": taken["x"]})
        assert refused.status_code == 409 and "asked already" in refused.json()["error"]
        outside = client.post("/api/pick", json={"item": state["queue"][0]["item"], "y": 64, "x": 0})
        assert outside.status_code == 409 and "outside" in outside.json()["error"]
        place = 0
        while state["queue"]:
            state = post(client, "pick", item=state["queue"][0]["item"], y=10 + place // 60, x=place % 60, seconds=1)
            place += 1
            if place == 3:
                state = post(client, "undo")
        work.done()
    made = [line for line in lines(tmp_path / "run" / "labels.jsonl") if line["round"] == 1]
    assert len(made) == 12 and {line["source"] for line in made} == {"ground-truth"}
    mask = np.asarray(Image.open(folder_of(settings) / f"{made[0]['image']}.png"))
    assert made[0]["class"] == classes_of(settings)[mask[made[0]["y"], made[0]["x"]]]
    assert lines(tmp_path / "run" / "rounds.jsonl")[1]["spatial_spread"] > 0


def test_a_person_picks_and_answers_at_once(settings, tmp_path):
    with served(settings | {"selector": "human", "rounds": 2}, tmp_path / "run") as (client, work):
        answer_all(client, lambda item: "road", rounds=1)
        state = client.get("/api/state").json()
        while state["phase"] != "labelling":
            time.sleep(0.05)
            state = client.get("/api/state").json()
        item = state["queue"][0]["item"]
        assert client.post("/api/answer", json={"item": item, "class": "sky"}).status_code == 409
        for place in range(12):
            item = state["queue"][0]["item"]
            state = post(client, "pick", item=item, y=5, x=place)
            assert (state["queue"][0]["item"], state["queue"][0]["y"], state["queue"][0]["x"]) == (item, 5, place)
            elsewhere = client.post("/api/answer", json={"item": item, "class": "sky", "y": 5, "x": place + 1})
            assert elsewhere.status_code == 409 and "another pixel" in elsewhere.json()["error"]
            assert client.post("/api/unsure", json={"item": item, "y": 5}).status_code == 400
            state = post(client, "answer", item=item, y=5, x=place, **{"class": "sky"})
            if place == 0:
                state = post(client, "undo")  # the class
                assert state["queue"][0]["y"] == 5
                state = post(client, "undo")  # the pick
                assert state["queue"][0]["y"] is None
                state = post(client, "pick", item=item, y=6, x=0)
                state = post(client, "answer", item=item, **{"class": "sky"})
        work.done()
    made = [line for line in lines(tmp_path / "run" / "labels.jsonl") if line["round"] == 1]
    assert [(line["y"], line["x"]) for line in made] == [(6, 0), *((5, x) for x in range(1, 12))]


def test_photos_without_masks_become_a_model(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40 + i, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.jpg")
    given = {"dataset": "folder", "dataset.data": str(photos), "dataset.classes": "grass,sky", "oracle": "human"}
    given |= TINY | {"first_pixels": 2, "rounds": 1, "budget": 2}
    with served(given, tmp_path / "run") as (client, work):
        assert answer_all(client, lambda item: "sky" if item["y"] < 20 else "grass") == 6
        work.done()
    made = alseg.predict(tmp_path / "run", [photos], out=tmp_path / "masks")
    assert made is not None
    assert len(list((tmp_path / "masks").rglob("*.png"))) >= 3


def test_the_state_survives_a_restart(settings, tmp_path):
    """Who comes back finds the same question, the same order, and can still undo."""
    run = tmp_path / "run"
    with pytest.raises(Waiting):
        alseg.run(settings, out=run, attendance=Attendance(wait=False))
    states = []
    for _ in range(2):
        listening = Listening()
        work = Working(
            lambda said=listening: annotate(
                RunFolder(run), registry=load_plugins(), attendance=Attendance(browser=False), progress=said
            )
        )
        with httpx.Client(base_url=listening.address(), timeout=30) as client:
            state = client.get("/api/state").json()
            if not states:
                for act in ("skip", "answer", "skip", "unsure"):
                    given = {"item": state["queue"][0]["item"]} | ({"class": "sky"} if act == "answer" else {})
                    state = post(client, act, **given)
            states.append(client.get("/api/state").json())
        from alseg_human.server import stop_page

        stop_page(run)
        with pytest.raises(alseg.AlsegError, match="has stopped"):
            work.done()
    ignored = {"session"}
    assert {k: v for k, v in states[0].items() if k not in ignored} == {
        k: v for k, v in states[1].items() if k not in ignored
    }
    assert states[0]["session"] != states[1]["session"] and states[0]["can_undo"]


def test_flags_without_anybody_who_answers_are_refused(cli, camvid, tmp_path):
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, "--no-wait", "--out", tmp_path / "run")
    assert outcome.code == 2 and "ground-truth" in outcome.err and not (tmp_path / "run").exists()


def test_annotating_what_no_person_answers_is_refused(cli, camvid, tmp_path):
    assert json.loads(cli("plugins", "--json").out)
    write_camvid(tmp_path / "other")
    outcome = cli("annotate", tmp_path)
    assert outcome.code == 2 and "is no run" in outcome.err
