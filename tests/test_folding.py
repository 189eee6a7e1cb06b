"""The copy for inference gives the model's logits, and its parts compute what they replace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alseg.engine.device import inferring, lower_precision
from alseg.plugins import load_plugins
from alseg_pixelpick.folding import FoldedConv2d, folded, folded_weights, has_fused_convolution

ENCODERS = ["test_resnet.r160_in1k", "mobilenetv2_050", "test_efficientnet.r160_in1k", "test_vit2.r160_in1k"]


def lively(module: nn.Module) -> nn.Module:
    """Norms that do something: no mean of 0, no scale of 1."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module.to(memory_format=torch.channels_last).eval()


def built(name: str, encoder: str) -> nn.Module:
    piece = load_plugins(third_party=False).find("model", name)
    return lively(piece.build(piece.resolve({"encoder": encoder, "weights": "none"}), classes=5))


@pytest.mark.parametrize("name", ["deeplabv3plus", "fpn"])
@pytest.mark.parametrize("encoder", ENCODERS[:3])
@torch.no_grad()
def test_the_copy_gives_the_model_s_logits(name, encoder):
    model = built(name, encoder)
    images = torch.rand(2, 3, 160, 192)
    wanted = model(images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with inferring(model, torch.float32) as quick:
        assert quick is not model
        norms = [m for m in quick.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not norms, "all of these encoders' norms follow a convolution"
        torch.testing.assert_close(quick.decode(quick.encode(images)), wanted, rtol=1e-3, atol=1e-3 * wanted.std())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@torch.no_grad()
def test_bfloat16_copies_stay_near_the_model():
    model = built("deeplabv3plus", "mobilenetv2_050")
    images = torch.rand(2, 3, 96, 128)
    wanted = model(images)
    with lower_precision(torch.device("cpu"), torch.bfloat16), inferring(model, torch.bfloat16) as quick:
        found = quick.decode(quick.encode(images))
        autocast = model(images)
    assert found.dtype == torch.float32
    assert (found - wanted).std() < 2 * (autocast - wanted).std() + 1e-3


@torch.no_grad()
def test_an_encoder_that_cannot_be_taken_apart_stays_whole():
    class Moody(nn.Module):
        def forward(self, x):
            return x if x.mean() > 0 else -x

    moody = Moody()
    assert folded(moody, torch.float32) is moody


@torch.no_grad()
def test_a_norm_whose_convolution_is_used_elsewhere_stays():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolve, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.convolve(x)
            return self.norm(y) + y

    module = lively(Twice())
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(folded(module, torch.float32)(images), module(images))


@pytest.mark.parametrize("activate", [nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.SiLU()])
@pytest.mark.parametrize("geometry", [{}, {"stride": 2, "padding": 1}, {"groups": 4, "dilation": 2, "bias": True}])
@torch.no_grad()
def test_folded_is_convolution_norm_and_activation(activate, geometry):
    convolve = nn.Conv2d(4, 8, 3, **geometry)
    norm = lively(nn.BatchNorm2d(8))
    x = 3 * torch.randn(2, 4, 11, 9)
    wanted = activate(norm(convolve(x)))
    found = FoldedConv2d(convolve, norm, activate, torch.float32)(x)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_the_fused_call_the_result_is_the_same(monkeypatch):
    convolve, norm = nn.Conv2d(3, 5, 3), lively(nn.BatchNorm2d(5))
    x = torch.randn(1, 3, 9, 9)
    module = FoldedConv2d(convolve, norm, nn.ReLU6(), torch.float32)
    found = module(x)
    monkeypatch.setattr("alseg_pixelpick.folding.has_fused_convolution", lambda precision: False)
    torch.testing.assert_close(module(x), found)
    assert isinstance(has_fused_convolution(torch.float32), bool)


def test_folded_weights_by_hand():
    convolve, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0).eval()
    with torch.no_grad():
        convolve.weight.fill_(3), convolve.bias.fill_(1)
        norm.running_mean.fill_(5), norm.running_var.fill_(4), norm.weight.fill_(6), norm.bias.fill_(7)
    weight, bias = folded_weights(convolve, norm)
    assert weight.item() == 9 and bias.item() == 7 + 6 * (1 - 5) / 2


@torch.no_grad()
def test_hooks_still_run_when_images_come():
    """Some encoders give their maps by hooks, which a trace would leave behind."""
    module, seen = lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), []
    module[0].register_forward_hook(lambda *arguments: seen.append(arguments))
    copy = folded(module, torch.float32)
    copy(torch.rand(1, 3, 8, 8))
    assert len(seen) == 1
