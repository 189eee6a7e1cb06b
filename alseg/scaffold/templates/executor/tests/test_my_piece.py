"""The executor keeps alseg's contract."""

from alseg.testing import check_executor

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_executor(my_piece)
