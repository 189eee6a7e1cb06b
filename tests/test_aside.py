"""Weights' gradients that are computed beside the backward pass."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from test_casts import Mixed, check_same, gradients, network
from torch import Tensor, nn

from alseg.engine import aside
from alseg.engine.aside import Aside
from alseg.engine.casts import Casts


class Counted(Aside):
    """One that knows how often it was called."""

    def __init__(self, device: torch.device = torch.device("cpu")) -> None:
        super().__init__(device)
        self.count = 0

    def later(self, work: Any) -> None:
        self.count += 1
        super().later(work)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_gradients_are_those_of_autocast(monkeypatch, at_once):
    monkeypatch.setattr(aside, "AT_ONCE", at_once)
    beside = Counted()
    check_same(network(), torch.rand(2, 3, 64, 64), beside=beside)
    assert beside.count > 20
    check_same(Mixed(), torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last), rel=1e-2, beside=beside)


def test_a_layer_that_is_called_twice_adds_its_gradients():
    layer, x = nn.Conv2d(3, 3, 3, padding=1), torch.randn(2, 3, 6, 6)
    ours, theirs = (nn.Sequential(one, one) for one in (layer, copy.deepcopy(layer)))
    beside = Counted()
    _, found = gradients(ours, x, Casts(ours, torch.bfloat16), beside)
    _, wanted = gradients(theirs, x)
    assert beside.count == 2
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-2, atol=2e-2)


def test_frozen_weights_get_none_and_others_theirs():
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 2, 2)
    model[1].weight.requires_grad_(False)
    twin, beside = copy.deepcopy(model), Counted()
    _, found = gradients(model, x, Casts(model, torch.bfloat16), beside)
    _, wanted = gradients(twin, x)
    assert found["1.weight"] is None
    assert torch.equal(found["1.bias"], wanted["1.bias"])
    assert torch.equal(found["0.weight"], wanted["0.weight"])


def test_what_a_failed_pass_has_left_is_forgotten():
    beside, layer = Counted(), nn.Conv2d(2, 2, 1, bias=False)
    x = torch.ones(1, 2, 1, 1, requires_grad=True)

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise ValueError("broken")

    with aside.used(beside), pytest.raises(ValueError, match="broken"):
        aside.convolved(layer, Fails.apply(x), layer.weight, None, beside).sum().backward()
    assert beside.count == 1
    with aside.used(beside):
        beside.join()
    assert layer.weight.grad is None


def test_outside_layers_are_as_they_were():
    beside, layer, x = Counted(), nn.Conv2d(3, 3, 1), torch.ones(1, 3, 2, 2)
    assert aside.here() is None
    with aside.used(beside):
        assert aside.here() is beside
        assert not aside.fits(layer, x[0])
        assert not aside.fits(nn.Conv2d(3, 3, 1, padding_mode="reflect"), x)
        with torch.no_grad():
            assert not aside.fits(layer, x)
        assert aside.fits(layer, x)
    assert aside.here() is None
