"""The acquirer keeps alseg's contract, and is the paper's formula."""

import numpy as np
from alseg.testing import check_acquirer, pool_batch

from alseg_ripu import ripu


def test_it_keeps_the_contract():
    check_acquirer(ripu)
    check_acquirer(ripu, {"reach": 3})


def entropy(p: np.ndarray) -> float:
    known = p[p > 0]
    return float(-(known * np.log(known)).sum())


def test_it_is_impurity_times_uncertainty():
    random = np.random.default_rng(0)
    p = random.dirichlet([0.5, 0.5, 0.5], (7, 9)).astype(np.float32)  # [H, W, C]
    utility = ripu(reach=2)(pool_batch(p.transpose(2, 0, 1)[None]))[0].numpy()
    for y, x in ((0, 0), (3, 4), (6, 8), (0, 5)):
        window = p[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].reshape(-1, 3)
        shares = np.bincount(window.argmax(1), minlength=3) / len(window)
        expected = entropy(shares) * np.mean([entropy(pixel) for pixel in window]) / np.log(3) ** 2
        np.testing.assert_allclose(utility[y, x], expected, rtol=1e-4, atol=1e-6)


def test_a_region_of_one_sure_class_is_worth_nothing():
    p = np.zeros((1, 3, 6, 6), np.float32)
    p[:, 1] = 1
    assert (ripu()(pool_batch(p)) == 0).all()
