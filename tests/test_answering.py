"""An open round: any series of acts leaves the state that its journal gives again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alseg.answering import NotOpen, OpenRound
from alseg.errors import AlsegError
from alseg.ledger import Plan
from alseg.looking import Looking
from alseg.plugins import load_plugins
from alseg.store import RunFolder
from alseg.values import Answer, Classes, PixelLabel, PixelLabels, Question

CLASSES = Classes(("sky", "road", "tree"), 255)
BEFORE = PixelLabels((PixelLabel("r00-0000000", "a", 0, 0, "sky", 0, "human", "me"),))


class Pool:
    def __len__(self) -> int:
        return 2

    def key(self, i: int) -> str:
        return "ab"[i]

    def image(self, i: int) -> np.ndarray:
        return np.zeros((5, 6, 3), np.uint8)

    def mask(self, i: int) -> None:
        return None


def questions(picks: bool) -> list[Question]:
    places = [(None, None)] * 3 if picks else [(1, 1), (2, 2), (3, 3)]
    return [Question(f"r01-{image}{i}", image, y, x, guess="sky") for image in "ab" for i, (y, x) in enumerate(places)]


def open_round(folder: RunFolder, picks: bool = False, asks_class: bool = True, **more) -> OpenRound:
    looking = Looking(load_plugins(), folder, 1, Pool(), 0)
    return OpenRound(
        1,
        questions(picks),
        folder,
        images=Pool(),
        sizes={"a": (5, 6), "b": (5, 6)},
        classes=CLASSES,
        labels=BEFORE,
        source="human",
        asks_class=asks_class,
        looking=looking,
        **more,
    )


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {})


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "unsure", "skip", "undo", "pick"]),
        st.integers(0, 5),
        st.sampled_from(CLASSES.names),
        st.integers(0, 29),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(acts=ACTS, picks=st.booleans(), asks_class=st.booleans())
def test_what_was_done_is_there_again_after_a_restart(tmp_path_factory, acts, picks, asks_class):
    asks_class = asks_class or not picks  # else nobody attends
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "run", {})
    round = open_round(folder, picks, asks_class)
    for act, number, name, place in acts:
        item = questions(picks)[number].item
        before = (folder.path / "journal.jsonl").read_bytes() if (folder.path / "journal.jsonl").exists() else b""
        try:
            if act == "answer":
                round.answer(item, name, "me", 1.5)
            elif act == "unsure":
                round.answer(item, None, "me")
            elif act == "skip":
                round.skip(item, "me")
            elif act == "undo":
                round.undo("me")
            else:
                round.pick(item, *divmod(place, 6), "me")
        except NotOpen:
            after = (folder.path / "journal.jsonl").read_bytes() if (folder.path / "journal.jsonl").exists() else b""
            assert after == before, "what is refused is not written"
    again = open_round(folder, picks, asks_class)
    for look in (
        OpenRound.placed,
        OpenRound.unanswered,
        OpenRound.unplaced,
        OpenRound.tally,
        lambda r: r.queue(10, "me"),
        lambda r: (r.complete, r.can_undo("me")),
        lambda r: sorted(r.points("a")),
    ):
        assert look(again) == look(round)
    # nothing is asked twice and nothing is lost
    placed = [(q.image, q.y, q.x) for q in round.placed() if q.y is not None]
    assert len(set(placed)) == len(placed) and ("a", 0, 0) not in placed
    if round.complete and asks_class:
        assert len(round.answered()) == 6 and not round.unanswered()
    while again.can_undo("me"):
        again.undo("me")
    assert not again.placed()[0].y if picks else again.unanswered() == again.placed()
    assert again.tally().done == 0 and len(again.queue(10, "me")) == 6


def test_the_queue_is_in_order_with_skipped_ones_last(folder):
    round = open_round(folder)
    round.skip("r01-a0", "me")
    round.answer("r01-a1", "sky", "me", 2.0)
    assert [q.item for q in round.queue(9, "me")] == ["r01-a2", "r01-b0", "r01-b1", "r01-b2", "r01-a0"]
    round.undo("me")
    assert round.queue(1, "me")[0].item == "r01-a1", "what is taken back is asked next"


def test_a_skip_that_is_taken_back_reopens_nothing_that_was_answered(folder):
    round = open_round(folder)
    round.skip("r01-a0", "ann")
    round.skip("r01-a0", "bob")
    round.answer("r01-a0", "sky", "bob", 1.0)
    round.undo("ann")
    assert round.tally().done == 1 and not round.can_undo("ann") and round.can_undo("bob")
    assert "r01-a0" not in [question.item for question in round.queue(9, "ann")]
    with pytest.raises(NotOpen):
        round.answer("r01-a0", "road", "ann")
    again = open_round(folder)
    assert again.tally() == round.tally() and again.queue(9, "ann") == round.queue(9, "ann")


def test_a_pick_that_somebody_else_answered_stands(folder):
    round = open_round(folder, picks=True, plan=Plan({"r01-a1": 2}, frozenset()))
    round.pick("r01-a0", 1, 1, "ann")
    round.pick("r01-a1", 2, 2, "ann")
    round.answer("r01-a0", "sky", "bob")
    round.answer("r01-a1", "road", "ann")
    round.answer("r01-a1/2", "road", "bob")
    round.undo("ann")
    assert not round.can_undo("ann"), "her answer is taken back, the picks are answered"
    with pytest.raises(NotOpen, match="nothing to take back"):
        round.undo("ann")
    assert [(label.item, label.y, label.name, label.who) for label in round.answered()] == [("r01-a0", 1, "sky", "bob")]
    round.undo("bob"), round.undo("bob")
    round.undo("ann")
    assert [question.item for question in round.unplaced()] == ["r01-a1", "r01-a2", "r01-b0", "r01-b1", "r01-b2"]


def test_the_same_answer_twice_is_one(folder):
    round = open_round(folder)
    round.answer("r01-a0", "sky", "me", 2.0)
    round.answer("r01-a0", "sky", "me", 2.5)
    assert len((folder.path / "journal.jsonl").read_text().splitlines()) == 1
    with pytest.raises(NotOpen, match="does not wait"):
        round.answer("r01-a0", "road", "me")
    with pytest.raises(NotOpen, match="does not wait"):
        round.answer("r01-a0", "sky", "somebody else")


def test_a_pixel_is_asked_once(folder):
    round = open_round(folder, picks=True)
    for item, y, x, word in (
        ("r01-a0", 0, 0, "asked already"),  # in an earlier round
        ("r01-a0", 5, 0, "outside"),
        ("r01-a0", 0, -1, "outside"),
        ("r01-zz", 1, 1, "does not wait"),
    ):
        with pytest.raises(NotOpen, match=word):
            round.pick(item, y, x, "me")
    round.pick("r01-a0", 1, 1, "me")
    round.pick("r01-a0", 1, 1, "me")  # a lost reply
    with pytest.raises(NotOpen, match="asked already"):
        round.pick("r01-a1", 1, 1, "me")
    with pytest.raises(NotOpen, match="asked already"):
        round.pick_all([("r01-b0", 1, 1), ("r01-b1", 1, 1)], "me")
    round.pick("r01-b0", 1, 1, "me")  # another image
    assert len((folder.path / "journal.jsonl").read_text().splitlines()) == 2


def test_an_answer_takes_as_long_as_its_pick_and_its_class(folder):
    round = open_round(folder, picks=True)
    for item, (pick, answer) in {"r01-a0": (4.0, 1.0), "r01-a1": (6.0, 2.0)}.items():
        round.pick(item, 1, int(answer), "me", pick)
        round.answer(item, "sky", "me", answer)
    assert round.tally().seconds == 5.0 + 1.5


def test_progress_moves_forth_and_back(folder):
    seen: list[int] = []
    round = open_round(folder, advance=seen.append)
    round.answer("r01-a0", "sky", "me", 1.0)
    round.answer("r01-a1", "road", "me", 3.0)
    round.skip("r01-a2", "me")
    tally = round.tally()
    assert (tally.done, tally.agreed, tally.guessed, tally.seconds, tally.skipped) == (2, 1, 2, 2.0, 1)
    round.undo("me")
    round.undo("me")
    assert sum(seen) == 1 == round.tally().done


def test_an_oracle_that_names_no_class_changes_nothing(folder):
    round = open_round(folder)
    with pytest.raises(AlsegError, match="answered 'sea' to r01-a1"):
        round.take([Answer("r01-a0", "sky", "x"), Answer("r01-a1", "sea", "x")])
    assert not (folder.path / "journal.jsonl").exists() and not round.complete
    round.take([Answer(q.item, "sky", "x") for q in questions(False)] + [Answer("r00-other", "sky", "x")])
    assert round.complete and len(round.answered()) == 6


@pytest.mark.parametrize(
    ("event", "word"),
    [
        ({"event": "answered", "class": "sea"}, "no class of the dataset"),
        ({"event": "picked", "y": "top", "x": 1}, "has no pixel"),
        ({"event": "picked"}, "has no pixel"),
        ({"event": "voted"}, "unknown event"),
    ],
    ids=str,
)
def test_a_journal_that_makes_no_sense_is_said(folder, event, word):
    folder.journal.append([{"item": "r01-a0", "who": "me", "time": "", **event}])
    with pytest.raises(AlsegError, match=word):
        open_round(folder)


def test_waiting_ends_when_the_last_answer_is_in(folder: RunFolder):
    from threading import Timer

    round = open_round(folder)
    assert not round.wait(0.01)
    for question in questions(False)[1:]:
        round.answer(question.item, "sky", "me")
    Timer(0.05, lambda: round.answer("r01-a0", "sky", "me")).start()
    assert round.wait(10) and round.complete


def test_events_say_who_and_when(folder):
    round = open_round(folder, picks=True)
    round.pick("r01-a0", 1, 2, "ann")
    round.answer("r01-a0", "sky", "ann", 1.25)
    with pytest.raises(NotOpen, match="nothing to take back"):
        round.undo("bob")
    round.undo("ann")
    events = [json.loads(line) for line in Path(folder.path / "journal.jsonl").read_text().splitlines()]
    assert [(e["event"], e["item"], e["who"]) for e in events] == [
        ("picked", "r01-a0", "ann"),
        ("answered", "r01-a0", "ann"),
        ("retracted", "r01-a0", "ann"),
    ]
    assert events[2]["what"] == "answered" and all(e["time"].startswith("20") for e in events)


def test_an_act_that_is_sent_again_is_done_once(folder):
    round = open_round(folder)
    for act, item in (("one", "r01-a0"), ("two", "r01-a1")):
        round.once(act, lambda item=item: round.answer(item, "sky", "ann"))
    round.once("back", lambda: round.undo("ann"))
    round.answer("r01-b0", "sky", "bob")
    round.once("back", lambda: round.undo("ann"))
    assert round.tally().done == 2
    again = open_round(folder)
    again.once("back", lambda: again.undo("ann"))
    assert again.tally().done == 2 and again.can_undo("ann")
    with pytest.raises(NotOpen):
        again.once("three", lambda: again.answer("r01-a0", "road", "bob"))
    again.once("three", lambda: again.answer("r01-a1", "road", "bob"))
    assert again.tally().done == 3, "what was refused is not known"


def test_an_answer_to_another_pixel_than_was_picked_is_refused(folder):
    round = open_round(folder, picks=True)
    round.pick("r01-a0", 1, 2, "ann")
    round.undo("ann")
    round.pick("r01-a0", 3, 4, "ann")
    for class_ in ("sky", None):
        with pytest.raises(NotOpen, match="another pixel"):
            round.answer("r01-a0", class_, "ann", at=(1, 2))
    round.answer("r01-a0", "sky", "ann", at=(3, 4))
    with pytest.raises(NotOpen, match="another pixel"):
        round.answer("r01-a0", "sky", "ann", at=(1, 2))
    with pytest.raises(NotOpen, match="waits for a pick"):
        round.answer("r01-a1", "sky", "ann", at=(1, 2))
