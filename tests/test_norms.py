"""Batch norms that are fused with their activation, beside torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from interpreted import runs_interpreted
from timm.layers import BatchNormAct2d
from torch import nn

from alseg.engine import norm_kernels
from alseg.engine.norms import ACTIVATIONS, fused, fusible, fusible_here, normed, sequences


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
        results.append(
            (out.detach(), given.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        )
    assert ours.num_batches_tracked == exact.num_batches_tracked == 1
    assert "forward" not in vars(ours)
    names = ("out", "input", "weight", "bias", "running_mean", "running_var")
    return {
        name: float((a.double() - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for name, a, b in zip(names, *results, strict=True)
    }


SHAPES = [(2, 5, 7, 3), (3, 16, 9, 8), (4, 130, 6, 6), (2, 3, 90, 100)]


def check_pair(device: str) -> None:
    """A norm with the activation after it in a sequence, and what is done where somebody looks in between."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 1)
    ours = nn.Sequential(*layers).to(device).to(memory_format=torch.channels_last)
    exact = copy.deepcopy(ours).double()
    x = torch.randn(2, 3, 9, 9).to(device).to(memory_format=torch.channels_last)
    norms, calls, seen = fusible(ours), [], []
    ours[2].forward = lambda x: calls.append(1) or torch.relu(x)
    with fused(norms, sequences(ours, norms)):
        ours(x)
    assert calls == [1]  # its own forward pass
    del ours[2].forward
    ours[1].load_state_dict(exact[1].state_dict())
    with fused(norms, sequences(ours, norms)):
        out = ours(x)
        assert ours[1](ours[0](x)).min() < 0  # on its own it is a norm
        handle = ours[1].register_forward_hook(lambda *call: seen.append(call[2].clone()))
        ours(x)
        assert seen[0].min() < 0
        handle.remove()
    assert not any("forward" in vars(module) for module in ours.modules())
    wanted = exact(x.double())
    assert "_Normed" in str(out.grad_fn.next_functions)
    for result in (out, wanted):
        result.square().sum().backward()
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-5)
    for found, expected in zip(ours.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, rtol=1e-3, atol=1e-4)


def check_parts(device: str) -> None:
    """Gradients that come as channels of another map, or in another order of memory, are read where they lie."""
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 6).to(device).to(memory_format=torch.channels_last)
    wide = torch.randn(2, 48, 5, 6).to(device).to(memory_format=torch.channels_last)
    for gradient in (wide[:, 16:32], wide[:, 8:24].contiguous(), wide[:1, :16].expand(2, -1, -1, -1)):
        found = []
        for dy in (gradient, gradient.contiguous(memory_format=torch.channels_last)):
            norm = norm_of(16, nn.ReLU6).to(device)
            given = x.clone(memory_format=torch.preserve_format).requires_grad_()
            with fused(fusible(norm)):
                norm(given).backward(dy)
            found.append((given.grad, norm.weight.grad, norm.bias.grad))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert norm_kernels.pitch_of(wide[:, 16:32]) == 48
    assert norm_kernels.pitch_of(wide.contiguous()) is None


def check_all(device: str) -> None:
    """Every activation and some shapes, in both precisions."""
    torch.backends.cudnn.allow_tf32 = False  # what is compared is rounded by the kernels alone
    check_pair(device)
    check_parts(device)
    for kind in ACTIVATIONS:
        for shape in SHAPES if kind is nn.ReLU6 else SHAPES[:-1]:  # many rows take the interpreter long
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
        plain: ACTIVATIONS[nn.Identity],
        six: (0.0, 6.0),
    }


def test_sequences_give_what_they_gave_where_the_kernels_do_not_fit():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU6(), nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU())
    model = nn.Sequential(nn.Conv2d(4, 4, 1), inner, nn.Sequential())
    twin, x = copy.deepcopy(model), torch.randn(2, 4, 5, 5)  # in contiguous memory
    norms = fusible(model)
    with fused(norms, sequences(model, norms)):
        assert "forward" in vars(inner) and "forward" not in vars(model)
        assert torch.equal(model(x), twin(x))


@pytest.mark.parametrize("how", ["evaluation", "no gradient", "no momentum", "contiguous"])
def test_what_the_kernels_do_not_fit_is_torch_s(how):
    norm = nn.BatchNorm2d(4, momentum=None if how == "no momentum" else 0.1).train(how != "evaluation")
    x = torch.randn(2, 4, 5, 5)
    x = x if how == "contiguous" else x.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(norm)
    with torch.set_grad_enabled(how != "no gradient"):
        assert torch.equal(normed(norm, ACTIVATIONS[nn.Identity], x), twin(x))
    assert torch.equal(norm.running_var, twin.running_var)


def test_nothing_is_fused_on_a_cpu():
    said: list[str] = []
    assert fusible_here(nn.Sequential(nn.BatchNorm2d(4)), torch.device("cpu"), torch.float32, True, said.append) == {}
    assert not said
