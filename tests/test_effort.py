"""What labelling cost, from journals, against independent sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alseg.journal import fold
from alseg.report.effort import effort, grouped, read_acts, seconds_by_class, spread, up_to_each_round

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

ROUNDS = {"a": 0, "b": 0, "c": 1}


def event(kind: str, item: str, who: str = "ann", **more: Any) -> dict[str, Any]:
    return {"event": kind, "time": "2026-01-01T00:00:00+00:00", "item": item, "who": who, **more}


def answered(item: str, name: str | None, seconds: float | None, who: str = "ann") -> dict[str, Any]:
    more = {"class": name} if name else {}
    return event("answered" if name else "unsure", item, who, **more, seconds=seconds)


def test_every_act_counts_and_answers_taken_back_stand_no_more():
    acts = read_acts(
        [
            event("skipped", "a"),
            answered("b", "sky", 2.0),
            event("retracted", "b", what="answered"),
            event("retracted", "a", what="skipped"),
            answered("b", "road", 1.0),
            answered("a", None, 4.0),
            event("picked", "c", y=1, x=2, seconds=1.5),
            answered("c", "sky", None),
        ],
        ROUNDS,
    )
    done = effort(acts)
    assert (done.answers, done.unsure, done.picks, done.skips, done.undos, done.acts) == (3, 1, 1, 1, 2, 8)
    assert done.seconds == 8.5, "the time of a pick and of what was taken back was spent too"
    assert done.untimed == 1
    assert done.spread == spread([1.0, 4.0])
    assert seconds_by_class(acts, ("sky", "road")) == {"road": [1.0], "can't tell": [4.0]}
    assert [act.round for act in acts] == [0] * 6 + [1, 1]


def test_programs_that_answer_are_no_people():
    events = [answered("a", "sky", None, "ground-truth"), answered("b", "sky", None, "ground-truth")]
    assert read_acts(events, ROUNDS) == []
    acts = read_acts([*events[:1], event("picked", "b", y=0, x=0), answered("b", "sky", None, "truth")], ROUNDS)
    assert [(act.kind, act.who) for act in acts] == [("picked", "ann")], "who picked, not the masks that answered"


def test_several_people_on_one_item():
    acts = read_acts(
        [
            event("vote", "a", "ann", **{"class": "sky"}, seconds=1.0),
            event("vote", "a", "bob", **{"class": "road"}, seconds=3.0, ask="a/2"),
            event("retracted", "a", "ann", what="answered"),
            event("leased", "other", "bob"),
        ],
        ROUNDS,
    )
    by_person = {who: effort(of) for who, of in grouped(acts, lambda act: act.who).items()}
    assert (by_person["ann"].answers, by_person["bob"].answers) == (0, 1)
    assert by_person["ann"].seconds == 1.0


def test_an_unknown_item_counts_to_the_round_before_it():
    acts = read_acts([answered("c", "sky", 1.0), answered("again", "sky", 1.0)], ROUNDS)
    assert [act.round for act in acts] == [1, 1]


@few
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["sky", "road", None])), max_size=30), st.data())
def test_what_stands_is_what_the_journal_folds_to(asked, data):
    """Answers and undos of one person: the standing answers are the journal's fold."""
    events, open_ = [], dict.fromkeys("abc")
    for item, name in asked:
        if item in open_:
            events.append(answered(item, name, data.draw(st.floats(0.1, 60))))
            del open_[item]
        else:
            events.append(event("retracted", item, what="answered"))
            open_[item] = None
    stand = {act.item: act.name for act in read_acts(events, ROUNDS) if act.stands}
    assert stand == {item: answer.name for item, answer in fold(events).items()}


@few
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1e4)), max_size=50))
def test_sums_up_to_each_round(values):
    expected = [sum(amount for at, amount in values if at <= round) for round in range(3)]
    assert up_to_each_round(values, 3) == pytest.approx(expected)


@few
@given(st.lists(st.floats(0.01, 1e3), min_size=1, max_size=60))
def test_quantiles_by_hand(seconds):
    def at(share: float) -> float:
        ordered, place = sorted(seconds), share * (len(seconds) - 1)
        low = int(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, len(seconds) - 1)] - ordered[low])

    found = spread(seconds)
    assert found is not None and found.timed == len(seconds)
    assert np.allclose(found[1:], [at(0.25), at(0.5), at(0.75), at(0.95)])


def test_nothing_is_nothing():
    assert spread([]) is None
    done = effort([])
    assert (done.answers, done.acts, done.seconds, done.spread) == (0, 0, None, None)
