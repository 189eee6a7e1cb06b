"""FPN against the published structure, and both models at output stride 8."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.grid import fractions, sample
from alseg_pixelpick.deeplab import DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder, last_four
from alseg_pixelpick.fpn import FPN

SMALL = "test_resnet.r160_in1k"


def fpn(name: str = SMALL, stride: int = 8, classes: int = 5, channels: int = 16) -> FPN:
    torch.manual_seed(0)
    return FPN(Encoder(name, "none", stride, last_four), classes, channels)


def images(*size: int, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def bottleneck(inputs: int, width: int, shortcut: bool) -> int:
    """A residual block of ResNet-50: 1x1, 3x3, 1x1 without bias, two numbers a batch norm channel."""
    convolutions = inputs * width + 9 * width * width + width * 4 * width
    norms = 2 * (width + width + 4 * width)
    return convolutions + norms + (inputs * 4 * width + 2 * 4 * width if shortcut else 0)


def test_fpn_50_has_the_parameters_of_the_published_structure():
    classes, lateral, channels = 11, 256, 128
    encoder = 7 * 7 * 3 * 64 + 2 * 64
    inputs = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        encoder += bottleneck(inputs, width, True) + (depth - 1) * bottleneck(4 * width, width, False)
        inputs = 4 * width
    laterals = sum(maps * lateral + lateral for maps in (256, 512, 1024, 2048))
    # a convolution with bias, and a weight and a bias for each channel of the group norm
    first = 9 * lateral * channels + channels + 2 * channels
    further = 9 * channels * channels + channels + 2 * channels
    # stride 4 is two doublings from the image's size, the three maps at stride 8 are three
    branches = 4 * first + (1 + 3 * 2) * further
    classifier = channels * classes + classes
    model = FPN(Encoder("resnet50", "none", 8, last_four), classes)
    assert count(model.encoder) == encoder == 23_508_032
    assert count(model) == encoder + laterals + branches + classifier == 26_709_579
    norms = [module for module in model.branches.modules() if isinstance(module, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {32}


def published(model: FPN, maps: tuple[Tensor, ...]) -> Tensor:
    """The published order: every branch doubled to the image's size, added there, classified there."""
    levels = [lateral(x) for lateral, x in zip(model.laterals, maps, strict=True)]
    above, total = None, 0
    for level, branch in reversed(list(zip(levels, model.branches, strict=True))):
        above = level if above is None else level + F.interpolate(above, level.shape[-2:], mode="bilinear")
        x = above
        for block in branch.blocks:
            x = F.interpolate(F.relu(block[1](block[0](x))), scale_factor=2, mode="bilinear")
        total = total + x
    return model.classifier(total)


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.no_grad()
def test_the_logits_are_those_of_the_published_order(stride: int):
    model = fpn(stride=stride, channels=64).eval()
    for norm in model.modules():
        if isinstance(norm, nn.GroupNorm):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    features = model.encode(images(64, 96))
    torch.testing.assert_close(model.decode(features), published(model, features.maps), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (49, 65), (33, 47), (32, 1), (5, 7)])
@pytest.mark.parametrize("stride", [8, 32])
@torch.no_grad()
def test_logits_are_at_the_images_own_size(size: tuple[int, int], stride: int):
    logits = fpn(stride=stride).eval()(images(*size))
    assert logits.shape == (2, 5, *size)
    assert logits.dtype == torch.float32
    assert bool(logits.isfinite().all())


@torch.no_grad()
def test_dilation_keeps_the_last_three_maps_at_stride_8():
    model = fpn().eval()
    assert model.encoder.strides == (4, 8, 8, 8)
    assert [tuple(x.shape[-2:]) for x in model.encode(images(64, 96)).maps] == [(16, 24), (8, 12), (8, 12), (8, 12)]


@pytest.mark.parametrize(
    ("name", "size", "strides"),
    [
        ("test_efficientnet.r160_in1k", (40, 56), (4, 8, 8, 8)),
        ("test_convnext.r160_in1k", (40, 56), (4, 8, 8, 8)),
        ("test_vit.r160_in1k", (160, 160), (16, 16, 16)),
    ],
)
@torch.no_grad()
def test_other_encoders(name: str, size: tuple[int, int], strides: tuple[int, ...]):
    model = fpn(name).eval()
    assert model.encoder.strides == strides
    assert model(images(*size, batch=1)).shape == (1, 5, *size)


def test_parameter_groups_hold_every_parameter_once():
    model = fpn()
    groups = model.parameter_groups()
    known = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(known) == sorted(id(parameter) for parameter in model.parameters())
    assert len(groups["encoder"]) == len(list(model.encoder.parameters()))


@torch.no_grad()
def test_the_decoder_treats_each_image_alone_and_alike_in_training():
    model = fpn().eval()
    features = model.encode(images(32, 48, batch=3))
    together = model.decode(features)
    model.train()
    torch.testing.assert_close(model.decode(features), together)
    alone = model.decode(type(features)(tuple(x[1:2] for x in features.maps), features.size))
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_logits_are_float32_in_lower_precision():
    model = fpn().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images(32, 48))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, model(images(32, 48)), atol=0.2, rtol=0.1)


def deeplab(stride: int, name: str = SMALL) -> DeepLabV3Plus:
    torch.manual_seed(0)
    return DeepLabV3Plus(Encoder(name, "none", stride), 5, 16)


@torch.no_grad()
def test_deeplab_at_output_stride_8():
    fine, coarse = deeplab(8).eval(), deeplab(16).eval()
    low, high = fine.encode(images(64, 96))
    assert low.shape[-2:] == (16, 24)
    assert high.shape[-2:] == (8, 12)
    assert coarse.encode(images(64, 96))[1].shape[-2:] == (4, 6)
    assert fine.decode((low, high)).shape == (2, 5, 16, 24)
    assert fine(images(49, 65)).shape == (2, 5, 13, 17)
    assert count(fine) == count(coarse)
    assert fine.state_dict().keys() == coarse.state_dict().keys()


def test_deeplabs_parameters_at_output_stride_8_are_the_papers():
    assert count(DeepLabV3Plus(Encoder("mobilenetv2_100", "none", 8), 11)) == 5_813_483


@pytest.mark.parametrize(
    ("name", "stride", "rates"),
    [
        (SMALL, 8, [6 * 2, 12 * 2, 18 * 2]),
        (SMALL, 16, [6, 12, 18]),
        (SMALL, 32, [6, 12, 18]),
        ("pvt_v2_b0", 8, [6, 12, 18]),  # cannot be dilated: its last map stays at stride 32
    ],
)
def test_the_rates_follow_the_stride_that_the_encoder_really_has(name: str, stride: int, rates: list[int]):
    branches = deeplab(stride, name).aspp.branches
    assert [branch[0].dilation for branch in branches] == [(1, 1), *((rate, rate) for rate in rates)]


@torch.no_grad()
def test_at_output_stride_8_the_decoder_around_points_equals_the_dense_one():
    model = deeplab(8).eval()
    features = model.encode(images(128, 160))
    pixels = torch.tensor([[[0, 0], [127, 159], [64, 3]], [[5, 150], [127, 0], [31, 32]]])
    points = fractions(pixels, (128, 160))
    expected = sample(model.decode(features), points)
    torch.testing.assert_close(model.decode_at(features, points), expected, atol=1e-4, rtol=1e-4)


def test_a_run_with_fpn(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, "--model", "fpn", "--encoder", SMALL, "--weights", "none"]
    words += ["--size", "49x65", "--device", "cpu", "-o", "model.channels=8", "-o", "train.epochs=1", "--rounds", 2]
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    rows = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert all(0 <= row["miou"] <= 1 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "steps"), [("fpn", 150), ("deeplabv3plus", 350)])
def test_a_model_learns_four_images_by_heart(registry, kind: str, steps: int):
    dataset = registry.find("dataset", "shapes").build({"train_images": 4, "val_images": 0, "side": 64})
    shown = dataset.images("train")
    pictures = torch.from_numpy(np.stack([shown.image(i) for i in range(4)])).permute(0, 3, 1, 2) / 255
    masks = torch.from_numpy(np.stack([shown.mask(i) for i in range(4)])).long()
    torch.manual_seed(0)
    options = {"encoder": SMALL, "weights": "none", "output_stride": 8, "channels": 32}
    model = registry.find("model", kind).build(options, classes=len(dataset.classes))
    descent = torch.optim.Adam(model.parameters(), lr=3e-3)

    def logits() -> Tensor:
        return F.interpolate(model.decode(model.encode(pictures)), masks.shape[-2:], mode="bilinear")

    model.train()
    for _ in range(steps):
        descent.zero_grad()
        F.cross_entropy(logits(), masks, ignore_index=dataset.classes.void).backward()
        descent.step()
    model.eval()
    with torch.no_grad():
        predicted = logits().argmax(1)
    scores = []
    for value in range(len(dataset.classes)):
        known = masks != dataset.classes.void
        true, said = (masks == value) & known, (predicted == value) & known
        if bool((true | said).any()):
            scores.append(float((true & said).sum() / (true | said).sum()))
    assert np.mean(scores) > 0.9, scores
