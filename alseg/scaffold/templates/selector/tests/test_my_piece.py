"""The selector keeps alseg's contract, and spreads its pixels."""

import torch
from alseg.testing import check_selector, pool_batch

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_selector(my_piece)
    check_selector(my_piece, {"cell": 2})


def test_each_square_has_its_best_first():
    batch = pool_batch(torch.full((1, 2, 4, 8), 0.5))
    utility = torch.arange(32.0).view(1, 4, 8)
    chosen = my_piece(cell=4)(batch, utility, 3).indices[0].tolist()
    assert chosen == [31, 27, 30]  # the best of the right and of the left square, then the next best of all
