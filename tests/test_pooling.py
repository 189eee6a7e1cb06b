"""ASPP's pooling by matrix products, beside torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from alseg_pixelpick.pooling import MeanPool2d, spread


class Pooled(nn.Module):
    """A map's mean, convolved and spread over it, by products or plainly."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        torch.manual_seed(0)
        self.pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1) if plain else MeanPool2d(), nn.Conv2d(6, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooling(x)
        return pooled.expand(-1, -1, *x.shape[2:]) if self.plain else spread(self, pooled, x)


def check_all(device: str) -> None:
    """Results and gradients in float32 and bfloat16, the gradient given as a slice of channels-last memory."""
    for kind in (torch.float32, torch.bfloat16):
        for size in ((23, 30), (5, 3), (1, 1), (2, 9)):
            given = torch.randn(2, 6, *size, device=device, dtype=kind).to(memory_format=torch.channels_last)
            dy, found = torch.randn(2, 7, *size, device=device).to(memory_format=torch.channels_last)[:, 3:], []
            for plain in (False, True):
                model, x = Pooled(plain).to(device), given.clone().requires_grad_()
                with torch.autocast(device, dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
                    out = model(x)
                gradients = torch.autograd.grad(out, [x, *model.parameters()], dy.to(out.dtype))
                found.append([out, *gradients])
            assert all(one.is_contiguous(memory_format=torch.channels_last) for one in found[0][:2])
            for ours, theirs in zip(*found, strict=True):
                assert ours.dtype == theirs.dtype
                within = 1e-2 if kind == torch.bfloat16 else 2e-3 if device == "cuda" else 1e-5
                assert float((ours - theirs).detach().norm()) <= within * float(theirs.detach().norm()) + 1e-6


def test_results_and_gradients_are_torch_s():
    check_all("cpu")


def test_gradients_of_gradients_are_numerical_ones():
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(Pooled(plain=False).double(), (x,))


@pytest.mark.parametrize("case", ["evaluation", "no gradients", "other memory"])
def test_else_it_is_torch_s_own(case):
    model, x = Pooled(plain=False).train(case != "evaluation"), torch.randn(2, 6, 3, 4)
    if case != "other memory":
        x = x.to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(case != "no gradients"):
        pooled = model.pooling[0](x.requires_grad_())
        assert "_Mean" not in str(pooled.grad_fn)
        assert torch.equal(model(x), Pooled(plain=True)(x))
