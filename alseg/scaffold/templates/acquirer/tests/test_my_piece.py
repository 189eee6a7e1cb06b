"""The acquirer keeps alseg's contract, and prefers what it should."""

from alseg.testing import check_acquirer, pool_batch

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_acquirer(my_piece)
    check_acquirer(my_piece, {"rivals": 2})


def test_close_rivals_are_asked_first():
    undecided, sure = [0.4, 0.3, 0.3], [0.9, 0.05, 0.05]
    batch = pool_batch([[[[u, s]] for u, s in zip(undecided, sure, strict=True)]])  # [1, 3, 1, 2]
    utility = my_piece()(batch)
    assert utility[0, 0, 0] > utility[0, 0, 1]
