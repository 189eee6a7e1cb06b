"""When to stop: intervals against SciPy, what they cover in simulations, and the words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alseg.report.agreement import Agreed, Interval, Slope
from alseg.report.stopping import advice, gains, on_agreement, on_seeds, paired_gain, points, trend, verdict
from alseg.trust import wilson

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def rounds(*mious: float | None, first: int = 100, step: int = 100) -> list[dict[str, Any]]:
    return [{"round": r, "miou": miou, "labelled_pixels": first + r * step} for r, miou in enumerate(mious)]


CURVE = (0.30, 0.41, 0.45, 0.50, 0.505, 0.53)


def test_the_trend_is_scipys_regression_of_the_last_five_rounds():
    found = trend(rounds(*CURVE))
    x, y = np.log(np.arange(200, 700, 100)), np.array(CURVE[1:])
    fit = scipy.stats.linregress(x, y)
    t = scipy.stats.t.ppf(0.975, 3)
    span = x[-1] - x[0]
    assert found is not None and found.rounds == 5
    assert found.gain == pytest.approx(fit.slope * span)
    ends = [(fit.slope + sign * t * fit.stderr) * span for sign in (-1, 1)]
    assert found.gain_interval == pytest.approx(ends)
    step = np.log(700) - np.log(600)
    assert (found.next_pixels, found.next_gain) == (100, pytest.approx(fit.slope * step))
    assert found.next_gain_interval == pytest.approx([(fit.slope + s * t * fit.stderr) * step for s in (-1, 1)])


def test_the_next_round_s_interval_is_the_textbook_s_with_matrices():
    found = trend(rounds(*CURVE))
    x = np.column_stack([np.ones(5), np.log(np.arange(200, 700, 100))])
    y, new = np.array(CURVE[1:]), np.array([1, np.log(700)])
    beta, squares, *_ = np.linalg.lstsq(x, y, rcond=None)
    error = np.sqrt(squares[0] / 3 * (1 + new @ np.linalg.inv(x.T @ x) @ new))
    low, high = scipy.stats.t.interval(0.95, 3, loc=new @ beta, scale=error)
    assert found is not None and found.next_miou == pytest.approx((low, high))


def test_intervals_cover_what_they_claim():
    """Rounds that scatter around a line in the logarithm: slope and next round are within in 95 % of runs."""
    random, x = np.random.default_rng(0), np.log(np.arange(1, 7) * 100.0)
    gain, seen, runs = 0, 0, 2000
    for _ in range(runs):
        y = 0.2 + 0.05 * x + random.normal(0, 0.01, 6)
        found = trend(rounds(*y[:5]))
        gain += found.gain_interval.low <= 0.05 * (x[4] - x[0]) <= found.gain_interval.high
        seen += found.next_miou.low <= y[5] <= found.next_miou.high
    assert 0.935 <= gain / runs <= 0.965
    assert 0.935 <= seen / runs <= 0.965


@few
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=9), st.integers(0, 50), st.integers(0, 50))
def test_any_rounds_are_coped_with(mious, first, step):
    records = rounds(*mious, first=first, step=step)
    found = trend(records)
    if found is not None:
        assert np.isfinite(found.gain)
        assert found.gain_interval is None or found.gain_interval.low <= found.gain <= found.gain_interval.high
    for sentence in advice(records, 4, [], None):
        assert "nan" not in sentence and "inf" not in sentence.replace("interval", "")


def test_too_little_for_a_trend():
    assert trend([]) is None
    assert trend(rounds(0.3, 0.4)) is None
    assert trend(rounds(0.3, 0.4, 0.5, step=0)) is None, "no new labels"
    same = trend(rounds(0.4, 0.4, 0.4))
    assert same is not None and same.gain_interval is None and same.next_miou is None


def test_gains_are_of_neighbouring_evaluated_rounds():
    assert gains(rounds(0.3, 0.4, None, 0.5, 0.45)) == [(1, pytest.approx(0.1)), (4, pytest.approx(-0.05))]


def test_the_gain_over_seeds_is_scipys_paired_t():
    runs = [(0.30, 0.40, 0.50), (0.28, 0.41, 0.49), (0.33, 0.42, 0.47)]
    after, before = np.array([run[2] for run in runs]), np.array([run[1] for run in runs])
    expected = scipy.stats.ttest_rel(after, before).confidence_interval(0.95)
    found = paired_gain([rounds(*run) for run in runs])
    assert found is not None and (found.seeds, found.first, found.last) == (3, 1, 2)
    assert found.gain == pytest.approx(float((after - before).mean()))
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_runs_over_seeds_that_are_not_all_there():
    whole, short = rounds(0.3, 0.4, 0.5), rounds(0.3, 0.45)
    found = paired_gain([whole, short])
    assert found is not None and (found.first, found.last) == (0, 1), "rounds that both have"
    assert paired_gain([whole]) is None and paired_gain([]) is None
    assert paired_gain([whole, rounds(0.3)]) is None
    assert paired_gain([whole, rounds(None, None)]) is None
    assert paired_gain([whole, whole]).interval is None, "runs that do not differ show no scatter"


def test_the_words_claim_no_more_than_the_interval():
    assert "still rises" in verdict(Interval(0.001, 0.02))
    assert "cannot be told apart from no gain" in verdict(Interval(-0.003, 0.027))
    assert "falls" in verdict(Interval(-0.02, -0.001))
    assert "no scatter" in verdict(None)
    said = " ".join(advice(rounds(*CURVE), 10, [], None))
    assert "+4.0, +5.0, +0.5, +2.5 points" in said
    assert "95 % interval" in said and "10 pixels an image" in said and "95 % prediction" in said
    assert "too little for a trend" in " ".join(advice(rounds(0.3, 0.4), 10, [], None))
    assert (points(0.012), points(-0.0004), points(-0.02)) == ("+1.2", "0.0", "-2.0")
    assert "over 2 seeds" in on_seeds("margin", paired_gain([rounds(0.3, 0.4), rounds(0.3, 0.42)]))


def test_without_masks_the_agreement_is_the_only_sign():
    agreed = [Agreed(r, k, 10, Interval(*wilson(k, 10))) for r, k in ((1, 4), (2, 5), (3, 7))]
    said = advice(rounds(None, None, None), 10, agreed, Slope(0.3, Interval(0.1, 0.5)))
    assert len(said) == 2 and "only sign" in said[0]
    assert "40 % of the answers in round 1 and 70 % in round 3, +30.0 points a round" in said[1]
    assert "may teach it less" in said[1]
    assert advice(rounds(None), 10, [], None) == []
    (alone,) = on_agreement(agreed[:1], None)
    assert "40 %" in alone
    (two,) = on_agreement(agreed[:2], None)
    assert "40 % of the answers in round 1 and 50 % in round 2; a trend takes 3 rounds." in two
    for slope, words in (
        (Slope(0.0, Interval(-0.1, 0.1)), "no trend"),
        (Slope(-0.3, Interval(-0.5, -0.1)), "may be harder"),
    ):
        assert words in next(iter(on_agreement(agreed, slope)))
    assert "no scatter" in next(iter(on_agreement(agreed, Slope(0.3, None))))


def test_random_pixels_that_only_measure_are_a_sign_too():
    measured = rounds(None, None)
    measured[-1]["audit"] = {"pixels": 40, "accuracy": 0.85, "low": 0.709, "high": 0.929}
    (said,) = advice(measured, 10, [], None)
    assert "At 40 random pixels" in said and "85 % (95 % interval 71 to 93)" in said
    measured[-1]["audit"] = None
    assert advice(measured, 10, [], None) == []
