"""The oracle keeps alseg's contract, and answers with the commonest class."""

import numpy as np
from alseg import Classes, Question
from alseg.testing import check_oracle

from my_piece import my_piece


class OneImage:
    """A mask of which only one pixel is a thing."""

    def __len__(self):
        return 1

    def key(self, i):
        return "a"

    def mask(self, i):
        mask = np.zeros((8, 8), np.uint8)
        mask[4, 4] = 1
        return mask


def test_it_keeps_the_contract():
    check_oracle(my_piece)
    check_oracle(my_piece, {"reach": 0})


def test_a_single_pixel_is_outvoted():
    for reach, name in ((0, "thing"), (1, "background")):
        oracle = my_piece(OneImage(), Classes(("background", "thing"), void=255), reach)
        oracle.ask([Question("r01-0000000", "a", 4, 4)])
        assert [answer.name for answer in oracle.collect().answers] == [name]
