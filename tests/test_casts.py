"""Weights that are cast all at once, beside those that autocast casts layer by layer."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from interpreted import runs_interpreted
from torch import Tensor, nn

from alseg.engine import aside
from alseg.engine import casts as casts_module
from alseg.engine.aside import Aside
from alseg.engine.casts import Casts
from alseg.engine.layers import quickened, ways_of
from alseg.plugins import load_plugins


class Mixed(nn.Module):
    """Layers of several kinds: one in float32 throughout, one whose weight is used twice, one without gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.frozen = nn.Conv2d(8, 8, 1).requires_grad_(False)
        self.twin = nn.Conv2d(8, 8, 1)
        self.twin.weight = self.grouped_weight = nn.Parameter(torch.randn(8, 8, 1, 1) / 3)
        self.linear = nn.Linear(8, 8)
        self.exact = nn.Linear(8, 4)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.frozen(self.grouped(self.first(x)))
        x = self.twin(x) + F.conv2d(x, self.grouped_weight)  # one weight, through its layer and past it
        x = self.linear(x.mean((2, 3)))
        with torch.autocast(x.device.type, enabled=False):
            return self.exact(x.float())


def gradients(
    model: nn.Module, images: Tensor, casts: Casts | None = None, beside: Aside | None = None, *, uses: bool = True
) -> tuple[Tensor, dict[str, Tensor | None]]:
    """Of a step in bfloat16, whose weights autocast casts where there are no `casts`."""
    model.zero_grad(set_to_none=True)
    with (casts or Casts(nn.Sequential(), torch.bfloat16)).used(), aside.used(beside):
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            out = model(images)
        out.float().square().mean().backward()
        if beside is not None:
            beside.join()
    if casts is not None:
        assert any(lower.grad is not None for lower in casts._lower.values()) == uses
        casts.hand_over()
        assert all(lower.grad is None for lower in casts._lower.values())
    return out, {name: parameter.grad for name, parameter in model.named_parameters()}


def check_same(ours: nn.Module, images: Tensor, *, rel: float = 0.0, beside: Aside | None = None) -> Casts:
    """Outputs and gradients of three steps are those of autocast; between them the weights move."""
    theirs, casts = copy.deepcopy(ours), Casts(ours, torch.bfloat16)
    for _ in range(3):
        torch.manual_seed(1)
        out, found = gradients(ours, images, casts, beside)
        torch.manual_seed(1)
        expected, wanted = gradients(theirs, images)
        torch.testing.assert_close(out, expected, rtol=rel, atol=rel)
        for name, gradient in wanted.items():
            if gradient is None:
                assert found[name] is None, name
            else:
                assert found[name].dtype == torch.float32
                torch.testing.assert_close(found[name], gradient, rtol=rel, atol=rel * float(gradient.abs().max()))
        with torch.no_grad():
            for parameter in theirs.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
            ours.load_state_dict(theirs.state_dict())
    assert not any("forward" in vars(module) for module in ours.modules())
    return casts


def test_gradients_are_those_of_autocast():
    # the weight that is used twice adds its two gradients in another precision
    check_same(Mixed(), torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last), rel=1e-2)


def network() -> nn.Module:
    load_plugins()
    from alseg_pixelpick.deeplab import DeepLabV3Plus
    from alseg_pixelpick.encoders import Encoder

    torch.manual_seed(0)
    model = DeepLabV3Plus(Encoder("test_byobnet.r160_in1k", "none", 16), classes=5, channels=16).train()
    return model.to(memory_format=torch.channels_last)


def test_a_network_s_gradients_are_those_of_autocast_bit_for_bit():
    casts = check_same(network(), torch.rand(2, 3, 64, 64))
    assert len(casts._layers) > 10


def check_all(device: str) -> None:
    """The kernel's casts are torch's, on a GPU bit for bit; where a weight has moved they are torch's own."""
    if device == "cpu":  # interpreted, in a process of its own
        casts_module.works_on = lambda device: True
    torch.manual_seed(0)
    layers = [nn.Linear(i, j) for i, j in ((1, 1), (3, 5), (64, 70), (7, 3))] + [
        nn.Conv2d(16, 9, 3),
        nn.Conv2d(6, 7, 1),
    ]
    model = nn.Sequential(*layers).to(device).to(memory_format=torch.channels_last)
    casts, weights = Casts(model, torch.bfloat16), list(model.parameters())
    for i in range(3):
        with torch.no_grad():
            for weight in weights:
                weight.copy_(torch.randn(weight.shape) * 10 ** (5 * i))
                weight[(0,) * weight.ndim] = [torch.inf, 1 + 2**-8, torch.nan][i]  # the second lies between two
        if i == 2:
            weights[2].data = weights[2].data.clone()
        versions = [lower._version for lower in casts._lower.values()]
        casts._cast()
        assert casts._table is not None
        assert all(lower._version > version for lower, version in zip(casts._lower.values(), versions, strict=True))
        for weight in weights:
            wanted, rtol = weight.bfloat16(), 2**-7 if device == "cpu" else 0  # the interpreter cuts off
            torch.testing.assert_close(casts._lower[weight], wanted, rtol=rtol, atol=0, equal_nan=True)


def test_the_kernel_s_casts_are_torch_s():
    runs_interpreted("test_casts")


def test_a_layer_s_weight_is_lower_in_its_call_alone(monkeypatch):
    model, seen, plain = nn.Sequential(nn.Linear(3, 2)), [], F.linear
    monkeypatch.setattr(F, "linear", lambda x, *weights: seen.append([w.dtype for w in weights]) or plain(x, *weights))
    model[0].register_forward_hook(lambda layer, given, out: seen.append([layer.weight.dtype, out.dtype]))
    casts = Casts(model, torch.bfloat16)
    with casts.used(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.ones(1, 3))
    with casts.used():
        model(torch.ones(1, 3))
    assert seen == [[torch.bfloat16] * 2, [torch.float32, torch.bfloat16], [torch.float32] * 2, [torch.float32] * 2]


def test_a_backward_pass_that_failed_leaves_nothing():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    casts = Casts(model, torch.bfloat16)
    with casts.used(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.ones(1, 3)).sum().backward()
    casts.forget()
    _, found = gradients(model, torch.ones(1, 3), casts)
    _, wanted = gradients(model, torch.ones(1, 3))
    assert all(torch.equal(found[name], gradient) for name, gradient in wanted.items())


@pytest.mark.parametrize("how", ["before", "hook"])
def test_a_weight_that_is_written_into_is_followed(how):
    model = nn.Sequential(nn.Linear(3, 3))
    casts = Casts(model, torch.bfloat16)
    if how == "hook":
        model[0].register_forward_pre_hook(lambda layer, given: layer.weight.data.zero_())
    with casts.used(), torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        if how == "before":
            model[0].weight.zero_()
        assert torch.equal(model(torch.ones(1, 3))[0], model[0].bias.bfloat16())


@pytest.mark.parametrize("how", ["hooked", "computed", "double", "own", "lazy"])
def test_layers_that_may_do_more_are_left_to_autocast(how):
    layer: nn.Module = nn.Linear(3, 3)
    if how == "hooked":
        layer.weight.register_hook(lambda gradient: gradient)
    elif how == "computed":
        nn.utils.parametrizations.weight_norm(layer)
    elif how == "double":
        layer.double()
    elif how == "lazy":
        layer = nn.LazyLinear(3)
    else:
        layer = type("Own", (nn.Conv2d,), {"_conv_forward": lambda self, x, w, b: x * w.mean()})(3, 3, 1)
    assert not Casts(layer, torch.bfloat16)._layers


def test_layers_with_a_way_of_their_own_keep_it():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
    with quickened(ways_of(model)):
        casts = Casts(model, torch.bfloat16)
    assert list(casts._layers) == [model[1]]
    with quickened(ways_of(model)), casts.used():
        assert "forward" in vars(model[0])


def test_a_weight_that_is_frozen_or_replaced_later_is_followed():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    casts = Casts(model, torch.bfloat16)
    model[0].requires_grad_(False)
    model[1].weight = nn.Parameter(torch.eye(3))
    given = torch.rand(2, 3)
    out, found = gradients(model, given, casts, uses=False)
    expected, wanted = gradients(model, given)
    assert torch.equal(out, expected)
    assert found["0.weight"] is None
    assert torch.equal(found["1.weight"], wanted["1.weight"])


def test_within_torch_func_layers_are_torch_s():
    model, images = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.rand(2, 1, 3, 9, 9)
    expected = torch.func.vmap(model)(images)
    with Casts(model, torch.bfloat16).used(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.func.vmap(model)(images)
    torch.testing.assert_close(found.float(), expected, rtol=1e-2, atol=1e-2)
