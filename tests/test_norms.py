"""Batch norms that are fused with their activation, beside torch's own."""

from __future__ import annotations

import copy
from math import inf

import pytest
import torch
from interpreted import runs_interpreted
from timm.layers import BatchNormAct2d
from torch import nn

from alseg.engine.norms import ACTIVATIONS, Fused, fused, fusible, fusible_here, normed


def norm_of(channels: int, kind: type[nn.Module]) -> nn.BatchNorm2d:
    """A norm with an activation and parameters of no special value."""
    made = BatchNormAct2d(channels, act_layer=kind, apply_act=kind is not nn.Identity, momentum=0.03, eps=1e-3)
    torch.manual_seed(channels)
    for tensor in (made.weight.data, made.running_mean):
        tensor.copy_(torch.randn(channels))
    made.bias.data.copy_(torch.randn(channels) + 2)
    return made


def differences(
    kind: type[nn.Module], shape: tuple[int, int, int, int], dtype: torch.dtype, device: str
) -> dict[str, float]:
    """How far what the kernels give is from what torch gives in float64, by the largest of each."""
    torch.manual_seed(0)
    x = (3 * torch.randn(shape) + 5).to(dtype).to(memory_format=torch.channels_last).to(device)
    gradient = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last).to(device)
    ours = norm_of(shape[1], kind).to(device)
    exact = copy.deepcopy(ours).double()
    results = []
    for norm, given in ((ours, x), (exact, x.double())):
        given = given.clone(memory_format=torch.preserve_format).requires_grad_()
        with fused(fusible(norm) if norm is ours else {}):
            assert ("forward" in vars(norm)) == (norm is ours)
            out = norm(given)
        out.backward(gradient.to(given.dtype))
        results.append((out, given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    assert ours.num_batches_tracked == exact.num_batches_tracked == 1
    assert "forward" not in vars(ours)
    names = ("out", "input", "weight", "bias", "running_mean", "running_var")
    return {
        name: float((a.detach().double() - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for name, a, b in zip(names, *results, strict=True)
    }


SHAPES = [(2, 5, 7, 3), (3, 16, 9, 8), (4, 130, 6, 6), (2, 3, 90, 100)]


def check_pair(device: str) -> None:
    """A norm with the activation after it in a sequence."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 1)).to(device)
    ours, exact = ours.to(memory_format=torch.channels_last), copy.deepcopy(ours).double()
    x = torch.randn(2, 3, 9, 9).to(device).to(memory_format=torch.channels_last)
    norms = fusible(ours)
    assert len(norms) == 1 and norms[ours[1]].after is ours[2]
    with fused(norms):
        out = ours(x)
        assert ours[2](torch.tensor(-1.0)) == 0  # of anything else it is itself
        ours[1](ours[0](x))
        assert ours[2](torch.tensor(-1.0)) == 0
    wanted = exact(x.double())
    assert "_Normed" in str(out.grad_fn.next_functions)
    for result in (out, wanted):
        result.square().sum().backward()
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-5)
    for found, expected in zip(ours.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-4)


def check_all(device: str) -> None:
    """Every activation and some shapes, in both precisions."""
    check_pair(device)
    for kind in ACTIVATIONS:
        for shape in SHAPES:
            found = differences(kind, shape, torch.float32, device)
            assert max(found.values()) < 2e-4, (kind, shape, found)
            # where rounding moves a value over the activation's edge its gradient comes or goes, in torch's own too
            found = differences(kind, shape, torch.bfloat16, device)
            assert max(found[name] for name in ("out", "running_mean", "running_var")) < 1e-2, (kind, shape, found)
            assert max(found.values()) < (2e-2 if kind is nn.Identity else 1.0), (kind, shape, found)


def test_the_kernels_give_what_torch_gives():
    runs_interpreted("test_norms")


def test_only_norms_that_the_kernels_know_are_fused():
    silu, instance = BatchNormAct2d(4, act_layer=nn.SiLU), nn.InstanceNorm2d(4, affine=True)
    without = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)
    plain, six = nn.BatchNorm2d(4), BatchNormAct2d(4, act_layer=nn.ReLU6)
    assert fusible(nn.Sequential(silu, instance, *without, plain, six)) == {
        plain: Fused(ACTIVATIONS[nn.Identity]),
        six: Fused((0.0, 6.0)),
    }


def test_norms_are_fused_with_the_activation_after_them():
    norms = [nn.BatchNorm2d(4) for _ in range(6)]
    relu, six, shared, heard = nn.ReLU(inplace=True), nn.ReLU6(), nn.ReLU(), nn.ReLU()
    heard.register_forward_hook(lambda *seen: None)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(4, 4, 1), norms[0], relu),
        nn.Sequential(norms[1], six, norms[2]),
        nn.Sequential(norms[3], shared, shared),
        nn.Sequential(norms[4], heard),
        nn.ModuleList([norms[5], nn.ReLU()]),  # who knows in which order it calls them
    )
    found = fusible(model)
    none = Fused(ACTIVATIONS[nn.Identity])
    assert found == {
        **{norms[0]: Fused((0.0, inf), relu), norms[1]: Fused((0.0, 6.0), six)},
        **dict.fromkeys(norms[2:], none),
    }
    with fused(found):  # where the kernels do not fit, as on contiguous memory, both are torch's
        x = torch.randn(2, 4, 5, 5)
        twin = copy.deepcopy(model[0])
        vars(twin[1]).pop("forward")
        assert torch.equal(model[0](x), twin(x)) and model[0](x).min() == 0
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("how", ["evaluation", "no gradient", "no momentum", "contiguous"])
def test_what_the_kernels_do_not_fit_is_torch_s(how):
    norm = nn.BatchNorm2d(4, momentum=None if how == "no momentum" else 0.1).train(how != "evaluation")
    x = torch.randn(2, 4, 5, 5)
    x = x if how == "contiguous" else x.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(norm)
    with torch.set_grad_enabled(how != "no gradient"):
        assert torch.equal(normed(norm, Fused(ACTIVATIONS[nn.Identity]), x), twin(x))
    assert torch.equal(norm.running_var, twin.running_var)


def test_nothing_is_fused_on_a_cpu():
    said: list[str] = []
    assert fusible_here(nn.Sequential(nn.BatchNorm2d(4)), torch.device("cpu"), torch.float32, True, said.append) == {}
    assert not said
