"""Agreement with the model and the likeliest mistakes, against SciPy and plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alseg.report.agreement import (
    Answered,
    agreement_by_round,
    agreement_slope,
    answered,
    examples,
    likeliest_mistakes,
)
from alseg.trust import wilson
from alseg.values import PixelLabel, Question

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def pair(
    round: int,
    agreed: bool,
    image: str = "one",
    number: int = 0,
    name: str | None = "sky",
    probability: float | None = 0.5,
    utility: float | None = 0.0,
) -> Answered:
    item = f"r{round:02}-{number:07}"
    guess = name if agreed else "road"
    question = Question(item, image, 1, 2, utility, 0, guess, probability, "tree", 1.0)
    return Answered(question, PixelLabel(item, image, 1, 2, name, round, "human", "ann"))


@few
@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts):
    expected = scipy.stats.binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_rounds_without_guesses_and_unlabelled_pixels_count_nowhere():
    pairs = [pair(1, True), pair(1, False), pair(1, True, name=None), pair(3, True)]
    pairs.append(Answered(pair(0, True).question._replace(guess=None), pair(0, True).label))
    assert [(one.round, one.agreed, one.guessed) for one in agreement_by_round(pairs)] == [(1, 1, 2), (3, 1, 1)]
    assert agreement_by_round([]) == []


def test_questions_without_a_label_are_left_out():
    question, label = pair(0, True)
    assert answered([question, question._replace(item="other")], [label]) == [(question, label)]


def drawn(seed: int, images: int = 12, rounds: int = 4, slope: float = 0.0) -> list[Answered]:
    """Answers whose agreement differs from image to image."""
    random = np.random.default_rng(seed)
    found = []
    for image in range(images):
        ease = random.uniform(0.2, 0.6)
        for round in range(1, rounds + 1):
            count = int(random.integers(2, 6))
            found += [pair(round, bool(random.random() < ease + slope * round), f"image {image}") for _ in range(count)]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_s_interval_is_the_cluster_robust_one(seed):
    """Written out with whole matrices: (X'X)^-1 (sum over images of X'u u'X) (X'X)^-1."""
    pairs = drawn(seed)
    x = np.array([[1.0, label.round] for _, label in pairs])
    y = np.array([float(q.guess == label.name) for q, label in pairs])
    images = np.array([q.image for q, _ in pairs])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    residual = y - x @ beta
    names = np.unique(images)
    meat = sum(
        np.outer(x[images == name].T @ residual[images == name], x[images == name].T @ residual[images == name])
        for name in names
    )
    n, g = len(y), len(names)
    error = np.sqrt((inverse @ meat @ inverse)[1, 1] * g / (g - 1) * (n - 1) / (n - 2))
    low, high = scipy.stats.t.interval(0.95, g - 1, loc=beta[1], scale=error)
    found = agreement_slope(pairs)
    assert found is not None and found.value == pytest.approx(beta[1])
    assert found.interval == pytest.approx((low, high))


def test_the_slope_s_interval_covers_the_truth():
    slopes = [agreement_slope(drawn(seed, images=20, slope=0.05)) for seed in range(400)]
    covered = sum(one.interval.low <= 0.05 <= one.interval.high for one in slopes)
    assert 0.92 <= covered / 400 <= 0.98


@few
@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.sampled_from("abcd")), max_size=40),
)
def test_the_slope_s_interval_holds_nothing_that_cannot_be(answers):
    """No shares in [0, 1] have a steeper least-squares line than none of the answers before, and all after the mean."""
    found = agreement_slope([pair(*answer) for answer in answers])
    rounds = np.array([round for round, _, _ in answers], float)
    if found is None:
        assert len(set(rounds.tolist())) < 3
    elif found.interval is not None:
        steepest = np.polyfit(rounds, rounds > rounds.mean(), 1)[0]
        assert -steepest - 1e-9 <= found.interval.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.interval.high <= steepest + 1e-9


def test_no_interval_where_there_is_no_scatter():
    assert agreement_slope([]) is None
    assert agreement_slope([pair(1, True), pair(1, False)]) is None, "one round has no trend"
    assert agreement_slope(drawn(0, rounds=2)) is None, "nor have two"
    alone = agreement_slope([pair(1, True), pair(1, False), pair(2, True), pair(3, True)])
    assert alone is not None and alone.interval is None, "one image has no spread between images"
    every = agreement_slope([pair(r, True, image) for r in (1, 2, 3) for image in "abc"])
    assert every == (0.0, None)


chances = st.one_of(st.none(), st.floats(0, 1))
labels = st.builds(
    pair,
    round=st.integers(0, 3),
    agreed=st.booleans(),
    image=st.sampled_from("abcd"),
    number=st.integers(0, 10**6),
    name=st.sampled_from(["sky", "tree", None]),
    probability=chances,
    utility=st.one_of(st.none(), st.floats(-5, 5)),
)


@few
@given(st.lists(labels, max_size=60))
def test_mistakes_are_the_surest_guesses_that_were_answered_otherwise(pairs):
    found = likeliest_mistakes(pairs)
    wrong = [
        p for p in pairs if p.label.name and p.question.guess != p.label.name and (p.question.probability or 0) > 0
    ]
    wrong = [p for p in wrong if p.question.probability >= 0.5]
    assert len(found) == min(20, len(wrong))
    assert [p.question.probability for p in found] == sorted((p.question.probability for p in wrong), reverse=True)[:20]
    assert all(p in wrong for p in found)


@few
@given(st.lists(labels, max_size=80))
def test_examples_have_the_highest_utility_and_two_an_image_at_most(pairs):
    found = examples(pairs, most=6)
    images = [p.question.image for p in found]
    assert all(images.count(image) <= 2 for image in images) and len(found) <= 6
    worths = [p.question.utility for p in found]
    assert worths == sorted(worths, reverse=True)
    # by hand: the two best of each image, and of these the six best
    best = []
    for image in "abcd":
        of = [p.question.utility for p in pairs if p.question.image == image and p.question.utility is not None]
        best += sorted(of, reverse=True)[:2]
    assert worths == sorted(best, reverse=True)[:6]
