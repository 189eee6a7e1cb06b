"""The batch norm of patches, whose statistics are of some positions."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg_pixelpick.patch_norm import normalised


@pytest.fixture(autouse=True)
def the_same_draws_each_time():
    torch.manual_seed(0)


def of(channels: int = 3, dtype: torch.dtype = torch.float32) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, dtype=dtype)
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5)
        norm.bias.normal_()
    return norm


def some(x: Tensor) -> Tensor:
    """Ones at the last two patches but for a corner."""
    counted = torch.zeros_like(x[:, :1])
    counted[-2:] = 1
    counted[-1, :, :2, 1:] = 0
    return counted


def test_where_all_count_it_is_torchs():
    x, norm = torch.randn(6, 3, 4, 4) * 3 + 1, of()
    other = copy.deepcopy(norm)
    given, same = x.clone().requires_grad_(), x.clone().requires_grad_()
    found, wanted = normalised(given, torch.ones(6, 1, 4, 4), norm), F.relu(other(same))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    for one, two in ((given, same), (norm.weight, other.weight), (norm.bias, other.bias)):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-4)
    for name, state in norm.state_dict().items():
        torch.testing.assert_close(state, other.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_others_are_normalised_by_what_counts_and_do_not_move_it():
    x, norm = torch.randn(5, 3, 4, 4), of()
    counted = some(x)
    found = normalised(x, counted, norm)
    seen = x.permute(1, 0, 2, 3)[:, counted[:, 0] > 0]  # [3, 28]
    mean, deviation = seen.mean(1)[:, None, None], (seen.var(1, correction=0)[:, None, None] + norm.eps).sqrt()
    wanted = F.relu((x - mean) / deviation * norm.weight[:, None, None] + norm.bias[:, None, None])
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * seen.var(1), rtol=1e-5, atol=1e-6)
    x[0] += 100
    torch.testing.assert_close(normalised(x, counted, norm)[1:], found[1:], rtol=0, atol=0)


@pytest.mark.parametrize("check", [torch.autograd.gradcheck, torch.autograd.gradgradcheck])
def test_its_gradients_are_right_and_those_of_them(check):
    x = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    norm = of(2, torch.float64)
    counted = some(x)

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(_Of(norm, counted), {"norm.weight": weight, "norm.bias": bias}, (x,))

    weight, bias = (p.detach().clone().requires_grad_() for p in (norm.weight, norm.bias))
    assert check(call, (x.requires_grad_(), weight, bias))


@pytest.mark.parametrize("fixed", ["norm", "patches"])
def test_a_gradient_of_gradients_where_something_takes_none(fixed):
    x, norm = torch.randn(3, 2, 3, 3, dtype=torch.float64), of(2, torch.float64)
    (norm if fixed == "norm" else x).requires_grad_(False)
    wanted = x.requires_grad_() if fixed == "norm" else norm.weight
    y = normalised(x, some(x), norm)
    (by,) = torch.autograd.grad(y.square().sum(), wanted, create_graph=True)
    assert torch.autograd.grad(by.square().sum(), wanted)[0].abs().sum() > 0


class _Of(nn.Module):
    def __init__(self, norm: nn.BatchNorm2d, counted: Tensor) -> None:
        super().__init__()
        self.norm, self.counted = norm, counted

    def forward(self, x: Tensor) -> Tensor:
        return normalised(x, self.counted, self.norm)


def test_within_torch_func_it_is_the_same():
    x, norm = torch.randn(3, 2, 3, 3), of(2).requires_grad_(False)
    counted = some(x)
    state = {f"norm.{name}": value.clone() for name, value in norm.state_dict().items()}  # which it may write to

    def loss(x: Tensor, state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(_Of(norm, counted), state, (x,)).square().sum()

    by = torch.func.grad(loss)(x, state)
    x.requires_grad_()
    normalised(x, counted, norm).square().sum().backward()
    torch.testing.assert_close(by, x.grad, rtol=1e-5, atol=1e-6)
