"""The recipe keeps alseg's contract: every setting is one, and takes its value."""

from alseg.testing import check_recipe

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_recipe(my_piece)
