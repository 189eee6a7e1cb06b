"""The statistics of a comparison, against scipy and against simulated studies of which the truth is known."""

from __future__ import annotations

import csv
import html
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import RANDOM, compare, write_asked, write_run

from alseg.compare.measures import spread_of
from alseg.compare.page import write_comparison
from alseg.compare.statistics import (
    ALPHA,
    BETTER,
    ONE_SEED,
    SAME,
    WORSE,
    area,
    holm,
    paired,
    power,
    reached_at,
    seeds_needed,
    summary,
    verdict,
)
from alseg.errors import AlsegError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def by_seed(values):
    return dict(enumerate(values))


def brute_force_holm(p_values):
    """Reject step by step: the corrected p is the smallest level at which a hypothesis falls."""

    def rejected(level):
        left, gone = set(range(len(p_values))), set()
        while left:
            first = min(left, key=lambda i: p_values[i])
            if p_values[first] * len(left) > level + 1e-15:
                break
            left.remove(first)
            gone.add(first)
        return gone

    levels = sorted({min(1.0, p * k) for p in p_values for k in range(1, len(p_values) + 1)} | {1.0})
    return [next((level for level in levels if i in rejected(level)), 1.0) for i in range(len(p_values))]


def test_mean_and_interval_are_scipy_s():
    values = [0.41, 0.44, 0.40, 0.47, 0.43]
    found = summary([*values, None, math.nan])
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert found == pytest.approx((5, np.mean(values), np.std(values, ddof=1), low, high))


@pytest.mark.parametrize("gain", [0.0, 0.03])
def test_a_paired_difference_is_scipy_s(gain):
    random = np.random.default_rng(1)
    theirs = 0.5 + 0.05 * random.standard_normal(6)
    ours = theirs + gain + 0.01 * random.standard_normal(6)
    found, expected = paired(by_seed(ours), by_seed(theirs)), stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.p < ALPHA) == bool(gain)


def test_only_seeds_that_both_have_are_paired():
    found = paired({0: 0.5, 1: 0.6, 2: None, 3: math.nan, 4: 0.9}, {1: 0.5, 0: 0.3, 2: 0.1, 3: 0.1, 7: 0.2})
    assert (found.pairs, found.mean) == (2, pytest.approx(0.15))
    assert paired({0: 0.5}, {1: 0.5}) is None
    alone = paired({0: 0.5}, {0: 0.4})
    assert (alone.pairs, alone.p) == (1, None)
    assert verdict(alone.mean, alone.p) == ONE_SEED


def test_differences_without_a_spread():
    same = {seed: 0.1 * seed for seed in range(5)}
    assert paired(same, same).p == 1
    assert paired({s: v + 0.02 for s, v in same.items()}, same).p == 0


@settings(deadline=None)
@given(P_VALUES)
def test_holm_is_its_step_down_procedure(p_values):
    assert holm(p_values) == pytest.approx(brute_force_holm(p_values), abs=1e-9)


@settings(deadline=None)
@given(P_VALUES, st.randoms())
def test_holm_keeps_the_order_and_does_not_mind_the_input_s(p_values, random):
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    for i, k in itertools.combinations(range(len(p_values)), 2):
        if p_values[i] <= p_values[k]:
            assert corrected[i] <= corrected[k]
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert holm([p_values[i] for i in order]) == [corrected[i] for i in order]


@settings(deadline=None)
@given(VALUES, VALUES)
def test_a_verdict_turned_round_is_its_opposite(ours, theirs):
    one, other = paired(by_seed(ours), by_seed(theirs)), paired(by_seed(theirs), by_seed(ours))
    words = verdict(one.mean, one.p), verdict(other.mean, other.p)
    assert words in {(SAME, SAME), (BETTER, WORSE), (WORSE, BETTER)}
    assert one.p == pytest.approx(other.p)


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> Path:
    """A comparison that asked once after the first round and trained on nothing of it."""
    root = tmp_path_factory.mktemp("asked")
    runs = []
    for seed, noise in enumerate((0.1, -0.1, 0.05, 0.0)):
        for acquirer, gain in (("random", 0.0), ("margin", 1.0), ("entropy", -1.0), ("k-means", 2 * noise)):
            selector = "uniform" if acquirer == "random" else "topk-then-uniform"
            runs.append(write_run(root / f"{acquirer}{seed}", [0.4], acquirer=acquirer, selector=selector, seed=seed))
            write_asked(runs[-1], 1, 20, 4 + gain + (1 if acquirer == "random" else 1.3) * noise)
    write_comparison(runs, root / "out", random=RANDOM)
    return root / "out"


def test_what_was_only_asked_is_compared_by_its_classes(asked):
    with open(asked / "diversity.csv", newline="") as file:
        rows = {row["acquirer"]: row for row in csv.DictReader(file) if row["round"] == "1"}
    words = {acquirer: row["verdict"] for acquirer, row in rows.items()}
    assert words == {"random": "reference", "margin": "more classes", "entropy": "fewer classes", "k-means": SAME}
    ours = [4 + 1 + 1.3 * noise for noise in (0.1, -0.1, 0.05, 0.0)]
    theirs = [4 + noise for noise in (0.1, -0.1, 0.05, 0.0)]
    expected, row = stats.ttest_rel(ours, theirs), rows["margin"]
    assert float(row["classes_mean"]) == pytest.approx(np.mean(ours))
    assert float(row["p_value"]) == pytest.approx(expected.pvalue)
    span = expected.confidence_interval(0.95)
    assert (float(row["difference_low"]), float(row["difference_high"])) == pytest.approx((span.low, span.high))
    p_values = [float(rows[name]["p_value"]) for name in ("margin", "entropy", "k-means")]
    assert [float(rows[name]["p_holm"]) for name in ("margin", "entropy", "k-means")] == pytest.approx(holm(p_values))


def test_the_opening_speaks_of_what_was_asked(asked):
    opening = html.unescape((asked / "comparison.html").read_text().partition("<h2>Figures")[0])
    among = "distinct classes among an image's pixels of that asking (mean of 4 seeds)"
    assert f"margin, topk-then-uniform has 5.02 {among}: more classes than" in opening
    assert "fewer classes than random (-1.00, 95 % interval" in opening
    assert "not distinguishable from random" in opening and "3 comparisons with random are made" in opening
    assert f"random has 4.01 {among}." in opening
    assert "no seed and budget in common" not in opening
    assert not {"pixels", "seconds"} & {path.stem for path in (asked / "figures").iterdir()}
    assert "bars: 95 % interval over seeds" in (asked / "comparison.html").read_text()
    assert "Distinct classes per image" in (asked / "summary.md").read_text()


def test_a_round_that_was_only_asked_shows_its_diversity(tmp_path):
    runs = []
    for seed in range(2):
        runs.append(write_run(tmp_path / f"m{seed}", [0.4], seed=seed))
        runs.append(write_run(tmp_path / f"r{seed}", [0.4], acquirer="random", selector="uniform", seed=seed))
        write_asked(runs[-2], 1, 20, 4.5 + seed)
    table = {(row["acquirer"], row["round"]): row for row in compare(runs, tmp_path / "out")}
    asked = table["margin", "1"]
    assert (asked["classes_per_image"], asked["pixels_per_image"], asked["miou_mean"]) == ("5.0", "20.0", "")
    (runs[0] / "asked.json").write_text("{}")
    with pytest.raises(AlsegError, match=r"asked\.json cannot be understood"):
        compare(runs, tmp_path / "out")


def test_nearly_the_same_pixels_are_one_budget(tmp_path):
    runs = [write_run(tmp_path / f"m{s}", [0.4, 0.5], seed=s, step=step) for s, step in enumerate((10, 10.02, 11))]
    table = compare(runs, tmp_path / "out")
    assert [(row["pixels_per_image"], row["seeds"]) for row in table] == [
        *(("10.01", "2"), ("11.0", "1"), ("20.02", "2"), ("22.0", "1"))
    ]


def test_identical_differences_are_called_odd(tmp_path):
    runs = []
    for seed in range(3):
        for acquirer, gain in (("margin", 0.125), ("random", 0.0)):
            selector = "uniform" if acquirer == "random" else "topk-then-uniform"
            mious = [0.25, 0.5 + gain]
            runs.append(
                write_run(tmp_path / f"{acquirer}{seed}", mious, acquirer=acquirer, selector=selector, seed=seed)
            )
    compare(runs, tmp_path / "out")
    assert "by exactly the same number in every seed" in (tmp_path / "out/comparison.html").read_text()


def test_of_studies_without_a_difference_one_in_twenty_finds_one_at_most():
    """The rate of studies with any false verdict, in a binomial interval of 5 % or below, and not far below."""
    random, studies, seeds, strategies, budgets = np.random.default_rng(5), 1000, 4, 3, 2
    wrong = uncorrected = 0
    for study in random.standard_normal((studies, strategies + 1, budgets, seeds)):
        reference, *others = study
        p_values = [
            paired(by_seed(ours), by_seed(theirs)).p
            for strategy in others
            for ours, theirs in zip(strategy, reference, strict=True)
        ]
        wrong += min(holm(p_values)) < ALPHA
        uncorrected += min(p_values) < ALPHA
    assert wrong <= stats.binom.ppf(0.999, studies, ALPHA)
    assert wrong >= 0.02 * studies, "a correction that finds nothing is no use"
    assert uncorrected > 0.1 * studies, "the study can fail"


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 5), (1.0, 10), (2.0, 4), (0.1, 400)])
def test_power_is_that_of_the_noncentral_t(effect, seeds):
    critical, shift = stats.t.ppf(1 - ALPHA / 2, seeds - 1), effect * math.sqrt(seeds)
    expected = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    assert power(effect, seeds, ALPHA) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("difference", "spread", "tests"), [(0.02, 0.02, 1), (0.03, 0.02, 6)])
def test_the_seeds_needed_are_enough_and_not_too_many(difference, spread, tests):
    needed = seeds_needed(difference, spread, tests)
    random = np.random.default_rng(3)
    for seeds, enough in ((needed, True), (max(2, needed // 2), False)):
        drawn = difference + spread * random.standard_normal((4000, seeds))
        found = (stats.ttest_1samp(drawn, 0, axis=1).pvalue < ALPHA / tests).mean()
        assert (found > 0.77) == enough
    assert power(difference / spread, needed - 1, ALPHA / tests) < 0.8


def test_seeds_that_nobody_can_run():
    assert seeds_needed(0.0, 0.01) is None
    assert seeds_needed(0.01, None) is None
    assert seeds_needed(0.0001, 0.1) is None
    assert seeds_needed(0.1, 0.0) == 2
    assert seeds_needed(1.0, 1e-6) == 2
    assert seeds_needed(0.02, 0.02, 100) > seeds_needed(0.02, 0.02)


def test_area_and_where_a_curve_gets_to():
    pixels, mious = [10, 20, 40], [0.2, 0.4, 0.5]
    assert area(pixels, mious, 10, 40) == pytest.approx((10 * 0.3 + 20 * 0.45) / 30)
    assert area(pixels, mious, 20, 30) == pytest.approx(0.425)
    assert area(pixels, mious, 10, 50) is None
    assert area([10], [0.2], 10, 10) is None
    assert reached_at(pixels, mious, 0.45) == pytest.approx(30)
    assert reached_at(pixels, mious, 0.1) == 10
    assert reached_at(pixels, mious, 0.6) is None


@pytest.mark.parametrize(("count", "size"), [(2, (60, 60)), (10, (360, 480)), (50, (100, 300)), (300, (200, 200))])
def test_uniform_draws_are_as_far_apart_as_expected(count, size):
    random = np.random.default_rng(count)
    drawn = {str(i): list(zip(*(random.integers(0, side, count) for side in size), strict=True)) for i in range(400)}
    found, expected = spread_of(drawn, dict.fromkeys(drawn, size))
    assert found == pytest.approx(expected, rel=0.08)


def test_pixels_in_a_heap_are_near_one_another():
    heaped = {"a": [(10, 10), (10, 11), (11, 10)], "alone": [(0, 0)]}
    found, expected = spread_of(heaped, {"a": (30, 40), "alone": (30, 40)})
    assert found == pytest.approx(1 / 50)
    assert expected > 10 * found
    assert spread_of({"alone": [(0, 0)]}, {"alone": (3, 4)}) == (None, None)
