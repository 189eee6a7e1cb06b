"""DeepLabv3+: its size, the decoder around points against the dense one, encoders and weights."""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg.grid import fractions, resize, sample
from alseg.plugins import Registry
from alseg_pixelpick.convolutions import resized, resized_convolution
from alseg_pixelpick.deeplab import ASPP, PATCH_COST, DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder

CORNERS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
OUTSIDE = [[-0.2, 0.5], [1.3, 1.3], [0.5, -2.0], [-1.0, 3.0]]
SMALL = "test_resnet.r160_in1k"


def deeplab(name: str = SMALL, weights: str = "none", stride: int = 16, classes: int = 5) -> DeepLabV3Plus:
    return DeepLabV3Plus(Encoder(name, weights, stride), classes, 16)


@pytest.fixture
def lively() -> DeepLabV3Plus:
    """A network in evaluation mode whose batch norms do something."""
    torch.manual_seed(0)
    model = deeplab()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0.2, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def without_dense(model: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> Tensor:
        raise AssertionError("the map was decoded")

    monkeypatch.setattr(model, "decode", refuse)
    monkeypatch.setattr(model, "decode_sampled", refuse)


def random_points(batch: int, count: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(seed))


def test_parameters_of_the_papers_network():
    model = DeepLabV3Plus(Encoder("mobilenetv2_100", "none", 16), 11)
    assert sum(p.numel() for p in model.parameters()) == 5_813_483


def test_registered_with_the_papers_defaults(registry: Registry):
    piece = registry.find("model", "deeplabv3plus")
    model = piece.build(piece.resolve({"weights": "none"}), classes=11)
    assert sum(p.numel() for p in model.parameters()) == 5_813_483
    assert model.origin == {"encoder": "mobilenetv2_100", "weights": "none", "sha256": ""}


@pytest.mark.parametrize(("name", "stride"), [("deeplabv3plus", 8), ("deeplabv3plus", 32), ("fpn", 16)])
def test_an_output_stride_that_an_encoder_cannot_have_is_refused(registry: Registry, name: str, stride: int):
    piece, encoder = registry.find("model", name), "mambaout_femto" if stride != 32 else "test_vit"
    options = {"weights": "none", "encoder": encoder, "channels": 8}
    with pytest.raises(UserMistake, match=rf"'{encoder}' has an output stride of \d+ and cannot be given {stride}"):
        piece.build(piece.resolve(options | {"output_stride": stride}), classes=2)
    piece.build(piece.resolve(options), classes=2)  # by default as it is


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_output_stride(stride: int):
    model = deeplab("mobilenetv3_small_050", stride=stride).eval()
    low, high = model.encode(torch.rand(1, 3, 64, 96))
    assert low.shape[2:] == (16, 24)
    assert high.shape[2:] == (64 // stride, 96 // stride)
    assert model(torch.rand(1, 3, 64, 96)).shape == (1, 5, 16, 24)


def test_parameter_groups_are_all_parameters_once():
    model = deeplab()
    groups = model.parameter_groups()
    assert set(groups) == {"encoder", "decoder"}
    assert {id(p) for p in groups["encoder"]} == {id(p) for p in model.encoder.parameters()}
    everything = [id(p) for group in groups.values() for p in group]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())


def test_the_model_normalises_its_input(monkeypatch: pytest.MonkeyPatch):
    model, seen = deeplab("mobilenetv2_100"), []
    forward = model.encoder.body.forward
    monkeypatch.setattr(model.encoder.body, "forward", lambda x: seen.append(x) or forward(x))
    image = torch.tensor([0.485, 0.456, 0.406])[None, :, None, None].expand(2, 3, 32, 32)
    model.encode(image)
    torch.testing.assert_close(seen[0], torch.zeros(2, 3, 32, 32))
    model.encode(image + torch.tensor([0.229, 0.224, 0.225])[:, None, None])
    torch.testing.assert_close(seen[1], torch.ones(2, 3, 32, 32))


@pytest.mark.parametrize("size", [(160, 160), (97, 113), (61, 203), (4, 600), (600, 3), (130, 75)])
@pytest.mark.parametrize("batch", [1, 2])
@torch.no_grad()
def test_decode_at_equals_sampling_decode(
    lively: DeepLabV3Plus, size: tuple[int, int], batch: int, monkeypatch: pytest.MonkeyPatch
):
    features = lively.encode(torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1)))
    dense = lively.decode(features)
    height, width = size
    pixels = [[0, 0], [0, width - 1], [height - 1, 0], [height - 1, width - 1], [height // 2, 1], [1, width // 2]]
    border = fractions(torch.tensor(pixels), size)
    # few enough at a time that the patches are cheaper than the map
    room = (dense.shape[2] * dense.shape[3] - 1) // PATCH_COST
    points = torch.cat([border, torch.tensor(CORNERS + OUTSIDE)]).expand(batch, -1, -1)
    points = torch.cat([points, random_points(batch, 20)], 1)
    without_dense(lively, monkeypatch)
    found = torch.cat([lively.decode_at(features, part) for part in points.split(room, 1)], 2)
    torch.testing.assert_close(found, sample(dense, points), atol=2e-5, rtol=1e-4)
    at_pixels = resize(dense, size)[..., [y for y, _ in pixels], [x for _, x in pixels]]
    torch.testing.assert_close(found[..., :6], at_pixels, atol=5e-5, rtol=1e-4)


@torch.no_grad()
def test_decode_at_takes_channels_last_and_points_of_each_image(lively: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch):
    images = torch.rand(3, 3, 128, 96, generator=torch.Generator().manual_seed(2))
    features = lively.encode(images)
    points = random_points(3, 8)
    expected = sample(lively.decode(features), points)
    without_dense(lively, monkeypatch)
    last = lively.to(memory_format=torch.channels_last)
    features = last.encode(images.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last.decode_at(features, points), expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_many_points_decode_the_map(lively: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch):
    features = lively.encode(torch.rand(1, 3, 64, 64))
    points = random_points(1, -(-256 // PATCH_COST))
    expected = sample(lively.decode(features), points)
    torch.testing.assert_close(lively.decode_at(features, points), expected, atol=2e-5, rtol=1e-4)
    without_dense(lively, monkeypatch)
    with pytest.raises(AssertionError, match="the map was decoded"):
        lively.decode_at(features, points)


@pytest.mark.parametrize("size", [(97, 113), (4, 600), (600, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_decode_sampled_is_the_sampled_map(lively: DeepLabV3Plus, size: tuple[int, int], training: bool):
    """In training, too: logits, gradients and the norms' statistics, of points that share cells."""
    lively.double().classifier.float()
    for module in lively.modules():
        module.train(training and not isinstance(module, nn.Dropout))
    plain, images = copy.deepcopy(lively), torch.rand(2, 3, *size).double()
    points = torch.cat([torch.tensor(CORNERS + OUTSIDE + CORNERS).expand(2, -1, -1), random_points(2, 12)], 1)
    found = gradients(lively, images, points, "decode_sampled")
    wanted = gradients(plain, images, points, "decode")
    assert found.keys() == wanted.keys() == {"logits", "images", *dict(lively.named_parameters())}
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-5)
    for one, other in zip(lively.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)


def gradients(model: DeepLabV3Plus, images: Tensor, points: Tensor, way: str) -> dict[str, Tensor]:
    model.zero_grad()
    images = images.clone().requires_grad_()
    features = model.encode(images)
    logits = sample(model.decode(features), points) if way == "decode" else getattr(model, way)(features, points)
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits, "images": images.grad} | found


def test_the_gradient_at_points_is_the_dense_one(lively: DeepLabV3Plus, monkeypatch: pytest.MonkeyPatch):
    lively.double().classifier.float()  # the classifier is float32 whatever surrounds it
    images = torch.rand(2, 3, 97, 113, generator=torch.Generator().manual_seed(3)).double()
    points = torch.cat([torch.tensor(CORNERS).expand(2, -1, -1), random_points(2, 12)], 1)
    dense = gradients(lively, images, points, "decode")
    without_dense(lively, monkeypatch)
    found = gradients(lively, images, points, "decode_at")
    assert found.keys() == dense.keys() == {"logits", "images", *dict(lively.named_parameters())}
    for name, gradient in found.items():
        torch.testing.assert_close(
            gradient, dense[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def trained_statistics(points: Tensor, images: Tensor) -> list[Tensor]:
    torch.manual_seed(5)
    model = deeplab().train()
    model.reference_patches = 8
    torch.manual_seed(6)
    logits = model.decode_at(model.encode(images), points)
    assert logits.shape == (2, 5, points.shape[1])
    assert logits.isfinite().all()
    return [buffer.clone() for name, buffer in model.named_buffers() if name.startswith(("first", "second"))]


def test_labelled_points_do_not_move_the_batch_norms():
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(4))
    one = trained_statistics(random_points(2, 6, 1), images)
    other = trained_statistics(torch.full((2, 6, 2), 0.01), images)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    fresh = [b for name, b in deeplab().named_buffers() if name.startswith(("first", "second"))]
    assert not any(torch.equal(a, b) for a, b in zip(one, fresh, strict=True))


@torch.no_grad()
def test_aspp_is_five_branches_projected():
    torch.manual_seed(1)
    aspp = ASPP(6, (6, 12, 18), 4).eval()
    x = torch.rand(2, 6, 9, 14)
    branches = [aspp.branches[0](x)]
    for branch, rate in zip(list(aspp.branches)[1:], (6, 12, 18), strict=True):
        y = nn.functional.conv2d(x, branch[0].weight, padding=rate, dilation=rate)
        branches.append(torch.relu(branch[1](y)))
    pooled = aspp.pooling[1](x.mean((2, 3), keepdim=True))
    branches.append(torch.relu(aspp.pooling[2](pooled)).expand_as(branches[0]))
    torch.testing.assert_close(aspp(x), aspp.project(torch.cat(branches, 1)), atol=1e-5, rtol=1e-5)
    assert aspp.dropout.p == 0.5


@torch.no_grad()
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_logits_are_float32_whatever_the_precision(lively: DeepLabV3Plus, precision: torch.dtype):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        features = lively.encode(torch.rand(1, 3, 128, 128))
        assert lively.decode(features).dtype == torch.float32
        assert lively.decode_at(features, random_points(1, 4)).dtype == torch.float32


ENCODERS = [
    (SMALL, (61, 75)),
    ("test_efficientnet.r160_in1k", (61, 75)),
    ("mobilenetv3_small_050", (61, 75)),
    ("test_convnext.r160_in1k", (64, 96)),
    ("test_nfnet.r160_in1k", (64, 96)),
    ("test_vit.r160_in1k", (64, 96)),  # a multiple of its patches of 16
    pytest.param(
        "test_mambaout",
        (64, 96),
    ),
]


@pytest.mark.parametrize(("name", "size"), ENCODERS)
def test_any_timm_encoder_fits(name: str, size: tuple[int, int]):
    model = deeplab(name).eval()
    features = model.encode(torch.rand(2, 3, *size))
    dense = model.decode(features)
    assert dense.shape[:2] == (2, 5)
    points = random_points(2, 1)
    torch.testing.assert_close(model.decode_at(features, points), sample(dense, points), atol=2e-5, rtol=1e-4)
    dense.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert sum(p.grad is not None for p in model.encoder.parameters()) > 0


@pytest.mark.parametrize("name", ["mobilnetv2_100", "no-such-network", "test_resnet.no_such_tag"])
def test_an_unknown_encoder_is_named(name: str):
    with pytest.raises(UserMistake, match=re.escape(name)):
        Encoder(name, "none", 16)


def test_weights_that_cannot_be_downloaded_are_the_users_to_give(monkeypatch: pytest.MonkeyPatch):
    create = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("no route to the hub")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserMistake, match=rf"{re.escape(SMALL)}.*no route to the hub.*--weights"):
        Encoder(SMALL, "default", 16)
    assert Encoder(SMALL, "none", 16).origin["sha256"] == ""


def test_a_missing_weights_file_is_named(tmp_path: Path):
    missing = tmp_path / "missing.safetensors"
    with pytest.raises(UserMistake, match=re.escape(str(missing))):
        Encoder(SMALL, str(missing), 16)


@pytest.mark.parametrize("name", ["notes.txt", "notes.safetensors", "notes.pth"])
@pytest.mark.parametrize("text", ["no weights at all\n", ""])
def test_a_text_file_as_weights_is_named(tmp_path: Path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserMistake, match=re.escape(str(path))):
        Encoder(SMALL, str(path), 16)


def timm_weights(name: str, path: Path, seed: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = {key: value.clone().contiguous() for key, value in timm.create_model(name).state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, str(path))
    else:
        torch.save(state, path)
    return state


@pytest.mark.parametrize("kind", ["safetensors", "pth"])
@pytest.mark.parametrize("name", ["test_resnet", "mobilenetv3_small_050"])
def test_a_weights_file_is_loaded(tmp_path: Path, name: str, kind: str):
    path = tmp_path / f"weights.{kind}"
    state = timm_weights(name, path)
    torch.manual_seed(8)
    encoder = Encoder(name, str(path), 16)
    loaded = encoder.body.state_dict()
    shared = [key for key in loaded if key in state]
    assert len(shared) == len(loaded)
    assert all(torch.equal(loaded[key], state[key]) for key in shared)
    torch.manual_seed(8)
    bare = Encoder(name, "none", 16).body.state_dict()
    assert not all(torch.equal(loaded[key], bare[key]) for key in loaded)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder.origin == {"encoder": name, "weights": str(path), "sha256": digest}


def test_a_cut_weights_file_is_refused(tmp_path: Path):
    path = tmp_path / "cut.safetensors"
    timm_weights("test_resnet", path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserMistake, match=re.escape(str(path))):
        Encoder("test_resnet", str(path), 16)


@pytest.mark.parametrize(
    ("encoder", "other"), [("mobilenetv2_100", "test_resnet"), ("test_vit", "test_resnet"), ("test_resnet", None)]
)
def test_weights_of_another_network_are_refused(tmp_path: Path, encoder: str, other: str | None):
    path = tmp_path / "other.safetensors"
    if other is None:
        save_file({"nothing.weight": torch.zeros(3)}, str(path))
    else:
        timm_weights(other, path)
    with pytest.raises(UserMistake, match=re.escape(str(path))):
        Encoder(encoder, str(path), 16)


@pytest.mark.parametrize("sizes", [((23, 30), (90, 120)), ((5, 7), (9, 20)), ((1, 1), (4, 4)), ((12, 9), (6, 7))])
def test_a_convolution_of_a_resized_map_is_computed_on_the_small_one(sizes):
    small, size = sizes
    maps, weight = torch.randn(2, 6, *small, dtype=torch.float64), torch.randn(5, 6, 3, 3, dtype=torch.float64)
    wanted = F.conv2d(F.interpolate(maps, size=size, mode="bilinear", align_corners=False), weight, padding=1)
    torch.testing.assert_close(resized_convolution(maps, weight, size), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [(9, 17), (30, 45), (3, 5), (4, 1)])
def test_maps_are_resized_as_torch_does(kind, size):
    """First seen in inference mode, whose tensors no training may see."""
    torch.manual_seed(0)
    maps = torch.randn(2, 6, 3, 5).to(memory_format=torch.channels_last).to(kind).requires_grad_()
    with torch.inference_mode():
        resized(maps, size)
    found, wanted = resized(maps, size), F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
    assert found.dtype == kind
    assert found.is_contiguous(memory_format=torch.channels_last)
    given = torch.randn_like(wanted)
    close = {"atol": 1e-5, "rtol": 1e-5} if kind == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(found.float(), wanted, **close)
    gradient = torch.autograd.grad(found, maps, given.to(kind))[0]
    torch.testing.assert_close(gradient.float(), torch.autograd.grad(wanted, maps, given)[0].float(), **close)
