"""The model keeps alseg's contract."""

import torch
from alseg.testing import check_model

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_model(my_piece, {"width": 8})


def test_the_logits_are_on_an_eighth_of_the_image():
    model = my_piece(classes=5, width=8)
    assert model.decode(model.encode(torch.rand(2, 3, 64, 96))).shape == (2, 5, 8, 12)
