"""The term keeps alseg's contract, and is lower where the model is less sure."""

import torch
from alseg import Taught
from alseg.testing import check_term

from my_piece import my_piece


def test_it_keeps_the_contract():
    check_term(my_piece)


def test_sure_predictions_cost_more():
    losses = []
    for scale in (0.0, 9.0):
        logits = scale * torch.eye(3)[None]  # [1, 3, 3]
        classes = torch.tensor([[0, 1, -100]])
        taught = Taught(torch.zeros(1, 3, 8, 8), None, logits, torch.zeros(1, 3, 2), classes, torch.zeros(1, 3))
        losses.append(float(my_piece(weight=1.0).loss(None, taught)))
    assert losses[0] < losses[1] <= 0
