"""The modified acquirer keeps alseg's contract, whatever it modifies, and an odd pixel counts less."""

import pytest
import torch
from alseg.testing import check_acquirer, pool_batch

from my_piece import my_piece


@pytest.mark.parametrize("inner", ["margin", "entropy", "power:margin"])
def test_it_keeps_the_contract(inner):
    check_acquirer(my_piece, around=inner)
    check_acquirer(my_piece, {"reach": 0}, around=inner)


def test_an_odd_pixel_counts_less_than_a_region():
    utility = torch.zeros(1, 9, 9)
    utility[0, 1, 1] = 1.0  # alone
    utility[0, 5:8, 5:8] = 0.5
    batch = pool_batch(torch.full((1, 2, 9, 9), 0.5))
    found = my_piece(lambda batch: utility, reach=1)(batch)[0]
    assert found[6, 6] == 0.5 > found[1, 1]


def test_without_reach_it_changes_nothing():
    utility = torch.arange(12.0).view(1, 3, 4)
    assert torch.equal(my_piece(lambda batch: utility, reach=0)(None), utility)
