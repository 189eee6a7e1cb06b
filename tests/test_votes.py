"""A round that waits for other people's votes or for repetitions: what it says, how it is closed, what goes out."""

from __future__ import annotations

import contextlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from annotator import Listening, Working, post
from conftest import SMALL
from test_answering import open_round, questions
from test_run import lines

from alseg.answering import Attendance, NotOpen
from alseg.attending import annotate, check_answered
from alseg.errors import Waiting
from alseg.interchange.labelset import read_run
from alseg.interchange.tables import read_csv
from alseg.journal import fold
from alseg.ledger import Plan
from alseg.loop import answered
from alseg.plugins import load_plugins
from alseg.store import RunFolder
from alseg.values import Question

OF_SEVERAL = Plan({"r01-a0": 2, "r01-a1": 3, "r01-a2": 3}, frozenset({"r01-b0"}))


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


def half_answered(folder: RunFolder):
    """Ann has answered all but the last, bob one more."""
    round = open_round(folder, plan=OF_SEVERAL)
    for question in questions(False)[:-1]:
        round.answer(question.item, "sky", "ann", 1.0)
    round.answer("r01-a1/2", "sky", "bob", 2.0)
    return round


def names_of(round) -> dict[str, str | None]:
    return {label.item: label.name for label in round.answered()}


@contextlib.contextmanager
def annotating(run):
    """Ann's client of the page on a waiting run, and the work behind it."""
    listening = Listening()
    work = Working(
        lambda: annotate(
            RunFolder(run), registry=load_plugins(), attendance=Attendance(browser=False), progress=listening
        )
    )
    with httpx.Client(base_url=listening.address(), timeout=30, headers={"x-alseg-who": "ann"}) as client:
        yield client, work


def test_a_round_says_how_many_questions_need_another_person(folder):
    round = half_answered(folder)
    lacking = round.lacking()
    assert (lacking.untouched, lacking.votes, lacking.again) == (1, {(1, 2): 1, (1, 3): 1, (2, 3): 1}, {"ann": 1})
    with pytest.raises(Waiting) as waits:
        check_answered(round)
    assert "Round 1 waits for 4 of 6 answers. 3 questions need another person" in str(waits.value)
    assert "(1 with 1 of 2 votes, 1 with 1 of 3 votes, 1 with 2 of 3 votes)" in str(waits.value)
    assert "1 answer is asked again, of ann." in str(waits.value)
    assert f"`alseg annotate {folder.path} --close-votes`" in str(waits.value)


def test_the_command_that_closes_votes_has_the_runs_plugins(tmp_path):
    given = {"record": {"plugin_files": ["/plugins/my oracle.py"]}}
    round = half_answered(RunFolder.create(tmp_path / "run", given))
    with pytest.raises(Waiting, match=r"`alseg --plugin '/plugins/my oracle.py' annotate \S+ --close-votes`"):
        check_answered(round)


def test_closed_votes_are_resolved_and_what_nobody_answered_stays_open(folder):
    round = half_answered(folder)
    assert round.close_votes("boss") == 4
    expected = dict.fromkeys(["r01-a0", "r01-a1", "r01-a2", "r01-b0", "r01-b1"], "sky")
    assert names_of(round) == expected and [q.item for q in round.unanswered()] == ["r01-b2"]
    assert round.close_votes("boss") == 0, "once is enough"
    with pytest.raises(NotOpen):
        round.answer("r01-a0/2", "road", "bob")
    again = open_round(folder, plan=OF_SEVERAL)
    assert again.tally() == round.tally() and again.answered() == round.answered()
    found = fold(folder.journal.events(), OF_SEVERAL.people)
    assert {item: answer.name for item, answer in found.items()} == expected, "as the journal says alone"
    assert found["r01-a1"].who == "ann, bob"
    again.answer("r01-b2", "road", "ann")
    check_answered(again)


def test_a_round_whose_model_is_trained_is_not_opened_again(folder):
    given = open_round(folder, plan=Plan({}, frozenset({"r01-a0"})))
    for question in questions(False):
        given.answer(question.item, "sky", "ann")
    folder.round_folder(1).joinpath("model.safetensors").touch()

    class Experiment:
        """Whose selector and oracle nobody may ask."""

        def answering(self, round: int, questions: list[Question]) -> Any:
            return contextlib.nullcontext(open_round(folder, plan=Plan({}, frozenset({"r01-a0"}))))

    assert not open_round(folder, plan=Plan({}, frozenset({"r01-a0"}))).complete, "ann may come back"
    assert len(answered(Experiment(), folder, 1, questions(False)).answered()) == 6


def test_a_vote_that_is_taken_back_opens_its_question_for_all(folder):
    round = half_answered(folder)
    round.close_votes("boss")
    round.undo("bob")  # his vote on a1; ann's is left
    assert "r01-a1" not in names_of(round) and round.lacking().votes == {(1, 3): 1}
    assert [q.item for q in round.queue(1, "bob")] == ["r01-a1/2"], "his next question"
    assert {q.item for q in round.queue(9, "cem")} == {"r01-b2", "r01-a1/3"}
    assert "r01-a1" not in fold(folder.journal.events(), OF_SEVERAL.people)
    assert open_round(folder, plan=OF_SEVERAL).lacking() == round.lacking()


def test_one_of_several_may_vote_before_the_first(folder):
    """The first showing may be with somebody who left: the vote that is in counts all the same."""
    round = open_round(folder, plan=OF_SEVERAL)
    round.queue(9, "ann")
    assert "r01-a0/2" in [question.item for question in round.queue(9, "bob")]
    round.answer("r01-a0/2", "tree", "bob")
    assert round.lacking().votes == {(1, 2): 1} and round.close_votes("boss") == 1
    assert names_of(round) == {"r01-a0": "tree"}
    (found,) = fold(folder.journal.events(), OF_SEVERAL.people).values()
    assert (found.item, found.name, found.who) == ("r01-a0", "tree", "bob")


def test_what_is_asked_again_is_not_shown_before(folder):
    round = open_round(folder, plan=Plan({}, frozenset({"r01-a0"})))
    round.answer("r01-a0", "sky", "ann")
    round.answer("r01-a1", "sky", "ann")
    assert [label.item for label in round.points("a")] == ["r00-0000000", "r01-a1"]
    for question in questions(False)[2:]:
        round.answer(question.item, "sky", "ann")
    assert names_of(round)["r01-a0"] == "sky", "it is a label all the same"
    round.answer("r01-a0/again", "road", "ann")
    assert "r01-a0" in [label.item for label in round.points("a")]


# Runs


def waiting_run(cli, camvid: Path, run: Path, trust: str) -> list[dict[str, Any]]:
    """A run whose first round's twelve questions ann has answered; the events."""
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--oracle", "human", "--first-pixels", 2]
    assert cli(*words, "-o", trust, "--rounds", 1, "--no-wait", "--out", run).code == 3
    asked = [line["item"] for line in lines(run / "rounds/00/questions.jsonl")]
    events = [{"event": "answered", "time": "", "item": item, "who": "ann", "class": "sky"} for item in asked]
    (run / "journal.jsonl").write_text("".join(json.dumps(event | {"seconds": 1}) + "\n" for event in events))
    return events


def test_a_run_without_a_second_voter_is_closed_and_goes_on(cli, camvid, tmp_path):
    run = tmp_path / "run"
    waiting_run(cli, camvid, run, "trust.overlap=1")
    outcome = cli("resume", run, "--no-wait")
    assert outcome.code == 3 and "12 questions need another person (12 with 1 of 2 votes)" in outcome.err
    assert f"`alseg annotate {run} --close-votes` makes do with what is in" in outcome.err
    outcome = cli("annotate", run, "--close-votes")
    assert outcome.code == 0, outcome.err
    assert "closed with the votes that are in: 12" in outcome.err
    closed = lines(run / "journal.jsonl")[12:]
    assert [event["event"] for event in closed] == ["closed"] * 12 and all(event["who"] for event in closed)
    assert cli("resume", run, "--no-wait").code == 0
    assert {(line["class"], line["who"]) for line in lines(run / "labels.jsonl")} == {("sky", "ann")}
    assert "closed" not in cli("report", run).err


def test_resume_closes_too_and_what_nobody_answered_is_waited_for(cli, camvid, tmp_path):
    run = tmp_path / "run"
    events = waiting_run(cli, camvid, run, "trust.overlap=1")
    (run / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events[:-1]))
    outcome = cli("resume", run, "--close-votes", "--no-wait")
    assert outcome.code == 3 and "Round 0 waits for 1 of 12 answers" in outcome.err
    assert "another person" not in outcome.err, "nobody has seen it"
    last = events[-1] | {"event": "vote", "ask": events[-1]["item"] + "/2"}
    with open(run / "journal.jsonl", "a") as journal:
        journal.write(json.dumps(events[-1]) + "\n" + json.dumps(last | {"who": "bob"}) + "\n")
    assert cli("resume", run, "--no-wait").code == 0


def test_repetitions_that_are_left_are_waited_for(cli, camvid, tmp_path, monkeypatch):
    """Stopped while only they are left: the round waits, and goes on with them."""
    run = tmp_path / "run"
    events = waiting_run(cli, camvid, run, "trust.again=1")
    outcome = cli("resume", run, "--no-wait")
    assert outcome.code == 3
    assert "Round 0 has all 12 answers and asks some again. 12 answers are asked again, of ann." in outcome.err

    def stopped(self, round):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("alseg_human.people.Labeller.attend", stopped)
        outcome = cli("resume", run)
        assert outcome.code == 3 and "asked again, of ann" in outcome.err and not (run / "labels.jsonl").exists()
        assert cli("annotate", run).code == 3
    with annotating(run) as (client, work):
        state = client.get("/api/state").json()
        image = state["queue"][0]["image"]
        assert client.get(f"/api/points/{image}").json() == [], "its own answer does not sway"
        while state["queue"]:
            assert state["queue"][0]["item"].endswith("/again")
            state = post(client, "answer", item=state["queue"][0]["item"], **{"class": "road"})
        work.done()
    assert len(lines(run / "journal.jsonl")) == 2 * len(events)
    assert cli("resume", run, "--no-wait").code == 0
    assert {line["class"] for line in lines(run / "labels.jsonl")} == {"sky"}


def test_repetitions_may_be_let_be(cli, camvid, tmp_path):
    run = tmp_path / "run"
    waiting_run(cli, camvid, run, "trust.again=1")
    assert cli("resume", run, "--close-votes", "--no-wait").code == 0
    assert len(lines(run / "rounds.jsonl")) == 1


def test_ctrl_c_after_the_last_answer_loses_nothing(cli, camvid, tmp_path, monkeypatch):
    run = tmp_path / "run"
    events = waiting_run(cli, camvid, run, "trust.again=0")
    (run / "journal.jsonl").write_text("")

    def last(self, round):
        for event in events:
            round.answer(event["item"], "sky", "ann")
        raise KeyboardInterrupt

    monkeypatch.setattr("alseg_human.people.Labeller.attend", last)
    outcome = cli("resume", run)
    assert outcome.code == 130 and "alseg resume" in outcome.err
    assert cli("resume", run, "--no-wait").code == 0


def test_who_is_alone_at_the_page_is_told(cli, camvid, tmp_path):
    run = tmp_path / "run"
    waiting_run(cli, camvid, run, "trust.overlap=1")
    with annotating(run) as (client, work):
        state = client.get("/api/state").json()
        assert state["queue"] == [] and "12 questions need another person (12 with 1 of 2 votes)" in state["message"]
        assert "--close-votes" in state["message"]
        other = client.get("/api/state", headers={"x-alseg-who": "bob"}).json()
        while other["queue"]:
            item = other["queue"][0]["item"]
            body = {"item": item, "class": "sky"}
            other = client.post("/api/answer", json=body, headers={"x-alseg-who": "bob"}).json()
    assert work.done() == 12


def test_votes_that_are_not_complete_do_not_go_out(cli, camvid, tmp_path):
    run, out = tmp_path / "run", tmp_path / "labels.csv"
    events = waiting_run(cli, camvid, run, "trust.overlap=1")
    said = cli("export", run, "--format", "csv", "--out", out).err
    assert "no labels yet" in said and "lacks other people's votes on 12 questions" in said
    with open(run / "journal.jsonl", "a") as journal:
        for event in islice(events, 5):
            other = {"event": "vote", "ask": event["item"] + "/2", "who": "bob"}
            journal.write(json.dumps(event | other) + "\n")
    outcome = cli("export", run, "--format", "csv", "--out", out)
    assert outcome.code == 0 and outcome.err.count("\n") == 1
    assert "lacks other people's votes on 7 questions of its open round: they are left out" in outcome.err
    assert [label.item for label in read_csv(out).labels] == [event["item"] for event in events[:5]]
    assert "7 questions" in cli("export", run, "--format", "coco", "--out", tmp_path / "labels.json").err
    with open(run / "journal.jsonl", "a") as journal:
        journal.write(json.dumps({"event": "closed", "time": "", "item": events[6]["item"], "who": "boss"}) + "\n")
    found = read_run(run)
    assert len(found.labels) == 6 and "6 questions" in found.notes[0], "closed is complete"
