"""Several people at one round, answers asked for twice, and pixels that only measure."""

from __future__ import annotations

import random
import threading
import time
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
from annotator import by_masks, served
from conftest import write_camvid
from hypothesis import given, settings
from hypothesis import strategies as st
from test_answering import open_round, questions
from test_human import TINY, classes_of, folder_of
from test_run import lines

import alseg
from alseg.answering import LEASE, NotOpen
from alseg.errors import UserMistake
from alseg.journal import fold
from alseg.ledger import Plan
from alseg.settings import TrustSettings
from alseg.store import RunFolder
from alseg.trust import agreement, plan_of
from alseg.values import Question


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


def names(round, who: str, count: int = 9) -> list[str]:
    return [question.item for question in round.queue(count, who)]


def test_two_people_are_shown_different_questions_until_a_lease_ends(folder):
    now = [0.0]
    round = open_round(folder, clock=lambda: now[0])
    assert names(round, "ann", 2) == ["r01-a0", "r01-a1"]
    assert names(round, "bob", 2) == ["r01-a2", "r01-b0"]
    round.answer("r01-a0", "sky", "ann")
    assert names(round, "ann") == ["r01-a1", "r01-b1", "r01-b2"], "hers goes on, his stays his"
    now[0] = LEASE + 1
    assert names(round, "bob", 2) == ["r01-a1", "r01-a2"], "she has left"
    with pytest.raises(NotOpen):
        round.answer("r01-a0", "road", "bob")


def test_a_blind_question_shows_nothing_of_the_model(folder):
    round = open_round(folder, plan=Plan({}, frozenset(), frozenset({"r01-a1"})))
    guesses = {question.item: question.guess for question in round.queue(9, "ann")}
    asked = {question.item: question.guess for question in questions(False)}
    assert asked["r01-a1"] is not None and guesses == asked | {"r01-a1": None}
    assert [item for item in asked if round.is_blind(item)] == ["r01-a1"]


def test_a_share_of_questions_is_blind():
    asked = [Question(f"r01-{number}", "a", 0, number) for number in range(400)]
    blind = plan_of(asked, TrustSettings(blind=0.25), 3, 1).blind
    assert 70 <= len(blind) <= 130 and blind == plan_of(asked[::-1], TrustSettings(blind=0.25), 3, 1).blind
    assert blind < plan_of(asked, TrustSettings(blind=0.5), 3, 1).blind
    assert not plan_of(asked, TrustSettings(), 3, 1).blind


def test_the_last_questions_are_shared_out(folder):
    round = open_round(folder)
    for question in questions(False)[:4]:
        round.answer(question.item, "sky", "ann")
    assert len(names(round, "ann")) == 2, "alone she has both"
    assert names(round, "bob") == []
    round = open_round(folder)
    assert names(round, "bob", 1) == ["r01-b1"]
    assert names(round, "ann") == ["r01-b2"]


def test_a_question_for_two_goes_to_two(folder):
    round = open_round(folder, plan=Plan({"r01-a0": 2}, frozenset()))
    assert names(round, "ann")[0] == "r01-a0"
    round.answer("r01-a0", "sky", "ann", 1.0)
    assert "r01-a0/2" not in names(round, "ann"), "she has said it"
    with pytest.raises(NotOpen, match="is not for ann"):
        round.answer("r01-a0/2", "sky", "ann")
    for question in questions(False)[1:]:
        round.answer(question.item, "road", "ann")
    assert not round.complete and names(round, "ann") == []
    (other,) = round.queue(9, "bob")
    assert (other.item, other.guess, other.y) == ("r01-a0/2", None, 1) and round.is_blind(other.item)
    assert not round.is_blind("r01-a0")
    round.answer("r01-a0/2", "tree", "bob", 2.0)
    assert round.complete
    label = round.answered()[0]
    assert (label.name, label.who, label.seconds) == (None, "ann, bob", 3.0), "one against one: nobody can tell"
    round.undo("bob")
    round.answer("r01-a0/2", "sky", "bob", 2.0)
    assert round.answered()[0].name == "sky"
    assert fold(folder.journal.events())["r01-a0"].name == "sky", "as the journal says alone"


def test_what_is_asked_again_is_asked_of_the_same_person_at_the_end(folder):
    round = open_round(folder, plan=Plan({}, frozenset({"r01-a0", "r01-b0"})))
    assert names(round, "ann", 8)[-1] != "r01-a0/again"
    for question in questions(False):
        round.answer(question.item, "sky", "ann" if question.image == "a" else "bob")
    assert names(round, "ann") == ["r01-a0/again"] and names(round, "bob") == ["r01-b0/again"]
    round.answer("r01-a0/again", "road", "ann")
    round.answer("r01-b0/again", "sky", "bob")
    assert round.complete and [label.name for label in round.answered()] == ["sky"] * 6, "the first answer counts"
    found = agreement(folder.journal.events())
    assert (found["again"]["pairs"], found["again"]["same"]) == (2, 0.5) and found["people"] == []


ACTS = st.lists(
    st.tuples(
        st.sampled_from([*["answer", "skip", "undo"] * 3, "close"]),
        st.sampled_from(["ann", "bob", "cem"]),
        st.integers(0, 8),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(acts=ACTS)
def test_people_and_a_restart_see_the_same(tmp_path_factory, acts):
    """Any acts of three people: the journal gives the state again, and nobody answers what is not for them."""
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", {})
    plan = Plan({"r01-a0": 2, "r01-b1": 3}, frozenset({"r01-a0", "r01-b2"}))
    round = open_round(folder, plan=plan)
    for act, who, number in acts:
        try:
            if act == "undo":
                round.undo(who)
                continue
            if act == "close":
                round.close_votes(who)
                assert not round.lacking().votes
                continue
            queue = round.queue(9, who)
            if queue:
                item = queue[number % len(queue)].item
                round.skip(item, who) if act == "skip" else round.answer(item, "sky", who, 1.0)
        except NotOpen:
            assert act == "undo"
    again = open_round(folder, plan=plan)
    assert again.tally() == round.tally() and again.answered() == round.answered()
    assert again.lacking() == round.lacking()
    found = fold(folder.journal.events(), plan.people)
    assert {item: (answer.name, answer.who) for item, answer in found.items()} == {
        label.item: (label.name, label.who) for label in round.answered()
    }, "as the journal says alone"
    assert [again.can_undo(who) for who in "abc"] == [round.can_undo(who) for who in "abc"]
    for who in ("ann", "bob", "cem"):
        assert again.can_undo(who) == round.can_undo(who)
    answers = round._ledger.answers
    for name, answer in answers.items():
        item, _, turn = name.partition("/")
        if turn == "again":
            assert item not in answers or answers[item].who == answer.who
    for item in ("r01-a0", "r01-b1"):
        voters = [
            answer.who for name, answer in answers.items() if name.partition("/")[0] == item and "again" not in name
        ]
        assert len(set(voters)) == len(voters)


def test_who_left_is_not_waited_for_to_be_asked_again(folder):
    now = [0.0]
    round = open_round(folder, plan=Plan({}, frozenset({"r01-a0", "r01-b0"})), clock=lambda: now[0])
    for question in questions(False):
        round.answer(question.item, "sky", "ann" if question.image == "a" else "bob")
    assert names(round, "ann") == ["r01-a0/again"] and names(round, "bob") == ["r01-b0/again"]
    now[0] = LEASE + 1
    names(round, "ann")
    assert not round.complete, "she is here"
    round.answer("r01-a0/again", "sky", "ann")
    assert round.complete, "he is not"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(overlap=st.floats(0, 1), again=st.floats(0, 1), seed=st.integers(0, 99))
def test_what_is_asked_twice_is_a_share_that_only_grows(overlap, again, seed):
    asked = [Question(f"r00-{i}", "a", 1, i) for i in range(400)] + [Question("r00-pick", "a", None, None)]
    plan = plan_of(asked, TrustSettings(overlap=overlap, again=again, voters=3), seed, 0)
    assert abs(len(plan.people) / 400 - overlap) < 0.12 and abs(len(plan.again) / 400 - again) < 0.12
    assert set(plan.people.values()) <= {3} and "r00-pick" not in plan.people
    more = plan_of(asked, TrustSettings(overlap=min(1, overlap + 0.1), again=again), seed, 0)
    assert plan.people.keys() <= more.people.keys()


def camvid_settings(place, **more):
    data = write_camvid(place / "camvid", train=5)
    pixels = {"first_pixels": 8, "pixels_per_round": 8, "rounds": 1}
    return {"dataset": "camvid", "dataset.data": str(data), "oracle": "human", **TINY, **pixels, **more}


def test_five_people_at_once_one_of_whom_leaves(tmp_path):
    """Different error rates, overlap and repetition: nothing is lost or asked without need, and the figures agree."""
    given = camvid_settings(tmp_path, **{"trust.overlap": 0.3, "trust.again": 0.2})
    name_of, classes = by_masks(folder_of(given), classes_of(given)), classes_of(given)
    said: dict[str, list[tuple[str, str | None]]] = {}
    with served(given, tmp_path / "run") as (client, work):
        address = str(client.base_url)

        def person(who: str, errors: float, leaves: int | None) -> None:
            chance, mine = random.Random(who), said.setdefault(who, [])
            with httpx.Client(base_url=address, timeout=30, headers={"x-alseg-who": who}) as own:
                while True:
                    try:
                        state = own.get("/api/state").json()
                    except httpx.HTTPError:
                        return
                    if state["phase"] != "labelling":
                        return
                    if not state["queue"]:
                        time.sleep(0.02)
                        continue
                    if leaves is not None and len(mine) >= leaves:
                        return  # with a lease on what they were shown
                    item = state["queue"][0]
                    name = name_of(item)
                    if chance.random() < errors:
                        name = chance.choice([other for other in classes if other != name])
                    body = {"item": item["item"], "seconds": 1.0} | ({"class": name} if name else {})
                    reply = own.post("/api/answer" if name else "/api/unsure", json=body)
                    if reply.status_code == 200:
                        mine.append((item["item"], name))

        from alseg import answering

        before, answering.LEASE = answering.LEASE, 0.5  # the one who leaves is not waited for long
        people = [("ann", 0.0, None), ("bob", 0.1, None), ("cem", 0.3, None), ("dee", 0.5, None), ("eve", 0.2, 3)]
        threads = [threading.Thread(target=person, args=one, daemon=True) for one in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        answering.LEASE = before
        work.done()
    events = lines(tmp_path / "run" / "journal.jsonl")
    asked = [line["item"] for line in lines(tmp_path / "run" / "rounds" / "00" / "questions.jsonl")]
    assert len(said["eve"]) == 3 and len(asked) == 40
    given_answers = [(event.get("ask", event["item"]), event.get("class")) for event in events]
    assert sorted(given_answers, key=str) == sorted((a for mine in said.values() for a in mine), key=str), (
        "nothing lost"
    )
    assert len({ask for ask, _ in given_answers}) == len(given_answers), "nothing asked twice without need"
    labels = {line["item"]: line for line in lines(tmp_path / "run" / "labels.jsonl")}
    assert sorted(labels) == sorted(asked)
    # an independent computation of the agreement figures
    by_ask = {ask: (who, name) for who, mine in said.items() for ask, name in mine}
    found = agreement(events)
    repeated = [
        (by_ask[ask.removesuffix("/again")], answer) for ask, answer in by_ask.items() if ask.endswith("/again")
    ]
    assert repeated and all(first[0] == second[0] for first, second in repeated)
    assert found["again"]["pairs"] == len(repeated)
    assert found["again"]["same"] == pytest.approx(np.mean([a[1] == b[1] for a, b in repeated]))
    both = [(by_ask[ask.removesuffix("/2")], answer) for ask, answer in by_ask.items() if ask.endswith("/2")]
    assert both and all(first[0] != second[0] for first, second in both)
    assert sum(row["pairs"] for row in found["people"]) == len(both)
    for row in found["people"]:
        mine = [a[1] == b[1] for a, b in both if sorted([a[0], b[0]]) == row["who"]]
        assert row["same"] == pytest.approx(np.mean(mine))
    voted = {ask.removesuffix("/2") for ask in by_ask if ask.endswith("/2")}
    for item in voted:
        one, other = by_ask[item][1], by_ask[f"{item}/2"][1]
        assert labels[item]["class"] == (one if one == other else None)


def test_audited_pixels_measure_and_are_never_trained_on(tmp_path):
    given = camvid_settings(tmp_path, **{"trust.audit": 30, "oracle": "ground-truth", "rounds": 2, "budget": 16})
    result = alseg.run(given, out=tmp_path / "run")
    plain = alseg.run(given | {"trust.audit": 0}, out=tmp_path / "plain")
    made = lines(tmp_path / "run" / "labels.jsonl")
    audits = [line for line in made if line.get("audit")]
    assert len(audits) == 60 and len(made) == 60 + 80
    first = [line for line in made if not line.get("audit") and line["round"] == 0]
    assert {(x["image"], x["y"], x["x"]) for x in first} == {
        (x["image"], x["y"], x["x"]) for x in lines(tmp_path / "plain" / "labels.jsonl") if x["round"] == 0
    }, "what is trained on is as without"
    assert [r["labelled_pixels"] for r in result.rounds] == [r["labelled_pixels"] for r in plain.rounds]
    assert result.rounds[0]["loss"] == plain.rounds[0]["loss"]
    segmenter = alseg.Segmenter(tmp_path / "run", round=1)
    dataset = alseg.load_plugins().find("dataset", "camvid").build({"data": tmp_path / "camvid"})
    images = dataset.images("train")
    index = {images.key(i): i for i in range(len(images))}
    right = [
        dataset.classes.names[segmenter.segment(images.image(index[a["image"]])).mask[a["y"], a["x"]]] == a["class"]
        for a in audits
    ]
    record = result.rounds[1]["audit"]
    assert record["pixels"] == 60 and record["accuracy"] == pytest.approx(np.mean(right))
    assert record["low"] <= record["accuracy"] < record["high"]


def test_audits_that_a_run_began_with_measure_nothing(tmp_path):
    """They were drawn over another pool; nor are they trained on."""
    given = camvid_settings(tmp_path, **{"trust.audit": 30, "oracle": "ground-truth"})
    alseg.run(given, out=tmp_path / "first")
    given |= {"trust.audit": 4, "rounds": 2, "start_from": str(tmp_path / "first")}
    del given["first_pixels"]
    result = alseg.run(given, out=tmp_path / "second")
    assert result.rounds[0]["audit"] is None and result.rounds[0]["labelled_pixels"] == 40
    assert result.rounds[1]["audit"]["pixels"] + result.rounds[1]["audit"]["unsure"] == 4
    assert sum(bool(line.get("audit")) for line in lines(tmp_path / "second" / "labels.jsonl")) == 34


@pytest.mark.parametrize(
    ("name", "does"), [("overlap", "asks people twice"), ("again", "asks people twice"), ("blind", "hides the model")]
)
def test_nobody_is_asked_twice_or_blind_where_nobody_is(tmp_path, name, does):
    given = camvid_settings(tmp_path, **{f"trust.{name}": 0.5, "oracle": "ground-truth"})
    with pytest.raises(UserMistake, match=rf"trust\.{name} {does}.*'ground-truth' is none"):
        alseg.run(given, out=tmp_path / "run")


def test_a_name_that_is_none_is_refused(tmp_path):
    with served(camvid_settings(tmp_path), tmp_path / "run") as (client, _):
        assert client.get("/api/state", headers={"x-alseg-who": "x" * 61}).status_code == 400
        assert client.get("/api/state", headers={"x-alseg-who": "J%C3%BCrgen"}).json()["who"] == "Jürgen"
        for given, name in (
            ("a%0A%C2%A0b%20", "a b"),
            (joined := "%D8%B9%D9%84%DB%8C%E2%80%8C%D8%B1%D8%B6%D8%A7", unquote(joined)),
        ):
            assert client.get("/api/state", headers={"x-alseg-who": given}).json()["who"] == name
        assert client.get("/api/state", headers={"x-alseg-who": "a%00b"}).status_code == 400
        from alseg_human.server import stop_page

        stop_page(tmp_path / "run")
