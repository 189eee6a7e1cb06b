"""What answers that were given twice, or that measure, say: votes, agreement and intervals, against SciPy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from alseg.journal import resolved
from alseg.trust import accuracy, audit_questions, kappa, wilson
from alseg.values import Answer, PixelLabel


@pytest.mark.parametrize(
    ("votes", "expected"),
    [(["a"], "a"), (["a", "a"], "a"), (["a", "b"], None), (["a", "b", "b"], "b"), ([None, None, "a"], None),
     (["a", None], None), (["a", "b", "c"], None), (["a", "a", "b", "b", "c"], None)],
)  # fmt: skip
def test_most_votes_win_and_a_tie_is_nobodys(votes, expected):
    given = [Answer("i", name, f"p{number}", 1.0) for number, name in enumerate(votes)]
    assert resolved(given).name == expected
    assert resolved(given).seconds == len(votes)


def test_kappa_and_agreement_are_as_computed_by_hand():
    random_ = np.random.default_rng(0)
    pairs = [(str(a), str(b)) for a, b in random_.integers(0, 3, (200, 2))] + [("0", "0")] * 100
    table = np.zeros((3, 3))
    for one, other in pairs:
        table[int(one), int(other)] += 1
    table /= table.sum()
    chance = table.sum(1) @ table.sum(0)
    assert kappa(pairs) == pytest.approx((np.trace(table) - chance) / (1 - chance))
    assert kappa([("0", "0")] * 3) is None


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (5, 5), (3, 7), (90, 100), (1, 1000)])
def test_the_interval_is_scipys(hits, count):
    expected = stats.binomtest(hits, count).proportion_ci(0.95, "wilson")
    assert wilson(hits, count) == pytest.approx((expected.low, expected.high))


NEIGHBOURHOODS = [(0.02, 0.12), (0.1, 0.3), (0.4, 0.6), (0.7, 0.9), (0.88, 0.98)]  # of shares that are right


@pytest.mark.parametrize("around", NEIGHBOURHOODS, ids=str)
@pytest.mark.parametrize("count", [20, 50, 150, 500])
def test_the_interval_covers_95_of_100_truths_of_a_neighbourhood(count, around):
    """Exactly, by the binomial distribution.

    At a single truth the score interval covers now more, now less, with the whole numbers that are possible; near 0
    and 1 it dips to 84 % (Brown, Cai and DasGupta, 2001). What holds is the mean over truths close to one another.
    """
    hits, truths = np.arange(count + 1), np.linspace(*around, 401)[:, None]
    low, high = np.array([wilson(int(k), count) for k in hits]).T
    covered = (stats.binom.pmf(hits, count, truths) * ((low <= truths) & (truths <= high))).sum(1)
    assert 0.945 <= covered.mean() <= 0.96
    assert covered.min() >= 0.83


@pytest.mark.parametrize(
    ("count", "around"), [(25, (0.1, 0.5)), (60, (0.5, 0.9)), (150, (0.2, 0.8)), (400, (0.8, 0.9))]
)
def test_the_audits_interval_covers_the_truth_as_often_as_it_says(count, around):
    """Eight hundred pools, each with a truth of its own, in images of several sizes that are not equally hard."""
    sizes, names = [(50, 60), (90, 70), (13, 17)], "abc"
    shares, worlds, covered = np.array([0.08, -0.04, -0.1]), np.random.default_rng(1), 0
    drawn = Counter[str]()
    for seed in range(800):
        right = [
            worlds.random(size) < share for size, share in zip(sizes, worlds.uniform(*around) + shares, strict=True)
        ]
        truth = sum(int(r.sum()) for r in right) / sum(r.size for r in right)
        found = audit_questions(names, sizes, (), count, lambda i, y, x: True, seed=seed, round=0)
        assert len({(q.image, q.y, q.x) for q in found}) == count
        labels = [PixelLabel("", q.image, q.y, q.x, "yes", 0, "", "", None, True) for q in found]
        said = accuracy(labels, ["yes" if right[names.index(q.image)][q.y, q.x] else "no" for q in found])
        covered += said["low"] <= truth <= said["high"]
        drawn.update(q.image for q in found)
    assert 0.93 <= covered / 800 <= 0.97
    areas = np.array([height * width for height, width in sizes]) / sum(height * width for height, width in sizes)
    spread = np.sqrt(800 * count * areas * (1 - areas))  # at most: pixels are not drawn twice
    assert (np.abs([drawn[name] for name in names] - 800 * count * areas) < 4 * spread).all()
