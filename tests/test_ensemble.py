"""Several models as one: what it says, how it learns, and runs with it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bands import CPU, Bands, source_of
from conftest import SMALL
from test_committee import IMAGES, Counted
from test_training import Toy

from alseg.engine.predict import predict
from alseg.engine.train import train
from alseg.errors import UserMistake
from alseg.plugins import Registry, load_plugins
from alseg.segment import Segmenter
from alseg.settings import TrainSettings
from alseg_pixelpick.deeplab import DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder
from alseg_pixelpick.ensemble import Ensemble


def counted(seed: int) -> Counted:
    model = Counted()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def toys(count: int) -> list[Toy]:
    torch.manual_seed(5)
    return [Toy() for _ in range(count)]


@torch.no_grad()
def test_its_probabilities_are_the_members_mean():
    members = [counted(seed).eval() for seed in range(3)]
    images = torch.rand(2, 3, 16, 12)
    mean = torch.stack([member.decode(member.encode(images)).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members)(images).softmax(1), mean)
    torch.testing.assert_close(Ensemble(members)(images).exp(), mean)


def test_its_samples_are_its_members():
    members = [counted(seed).eval() for seed in range(3)]
    prediction = predict(Ensemble(members).eval(), IMAGES, None, CPU, torch.float32)
    samples = prediction.samples(3)
    assert [member.encoded for member in members] == [0, 0, 0]
    for member, sample in zip(members, samples, strict=True):
        assert torch.equal(sample, predict(member, IMAGES, None, CPU, torch.float32).probabilities())
    assert len(list(prediction.samples(2))) == 2
    with pytest.raises(UserMistake, match=r"has 3 members and 4 samples.*acquirer\.passes=3"):
        prediction.samples(4)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_each_member_learns_as_if_it_were_alone(optimizer: str):
    members, images = toys(3), Bands(4)
    alone = copy.deepcopy(members)
    settings = TrainSettings(epochs=2, learning_rate=1e-2, workers=0, optimizer=optimizer)
    source = source_of(images, images.labels(4))
    together = train(Ensemble(members), source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
    losses = []
    for model in alone:
        result = train(model, source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
        losses.append(result.loss)
    for ours, theirs in zip(members, alone, strict=True):
        for name, tensor in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor)
    assert together.loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_it_trains_at_the_points_where_its_members_can():
    torch.manual_seed(0)
    members = [DeepLabV3Plus(Encoder("test_resnet.r160_in1k", "none", 16), 3, 8) for _ in range(2)]
    images, dense = Bands(4), []
    for member in members:
        member.first_dropout.register_forward_pre_hook(lambda module, inputs: dense.append(inputs[0].shape[-2:]))
    settings = TrainSettings(epochs=1, workers=0)
    source = source_of(images, images.labels(2), size=(128, 128))
    train(Ensemble(members), source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
    assert {tuple(shape) for shape in dense} == {(4, 4), (32, 32)}, "patches; whole maps to settle the norms"
    dense.clear()
    settings = replace(settings, decode="dense")
    train(Ensemble(members), source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
    assert {tuple(shape) for shape in dense} == {(32, 32)}


def test_a_fast_copy_says_the_same():
    torch.manual_seed(0)
    model = Ensemble([DeepLabV3Plus(Encoder("test_resnet.r160_in1k", "none", 16), 3, 8) for _ in range(2)]).eval()
    quick, images = model.for_inference(torch.float32), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(quick(images), model(images), atol=1e-4, rtol=1e-4)
        assert model.embedding(model.encode(images)).shape == (1, 16, 16, 16)
        with pytest.raises(UserMistake, match="no embedding"):
            (other := Ensemble([Counted(), Counted()])).embedding(other.encode(images))


def test_its_members_start_apart_and_the_first_as_one_alone(registry: Registry):
    from alseg.config import resolve
    from alseg.models import Models

    options = {"model.encoder": "test_resnet.r160_in1k", "model.weights": "none", "model.channels": 8, "seed": 1}
    made = {}
    for name, more in (("deeplabv3plus", {}), ("ensemble:deeplabv3plus", {"model.members": 3})):
        config = resolve(registry, options | more, {"model": name}).config
        made[name] = Models(registry, config, 4, CPU).fresh(2)
    plain, joint = made.values()
    weights = [member.classifier.weight for member in joint.members]
    assert torch.equal(weights[0], plain.classifier.weight)
    assert not torch.equal(weights[1], weights[2])
    assert {name: len(group) for name, group in joint.parameter_groups().items()} == {
        name: 3 * len(group) for name, group in plain.parameter_groups().items()
    }


ENSEMBLE = ("--model", "ensemble:deeplabv3plus", "-o", "model.members=2")
BALD = ("--acquirer", "bald", "--first-pixels", 2, "--pixels-per-round", 2)


def test_a_run_is_resumed_predicts_and_is_exported(cli, camvid, tmp_path, refused):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, *ENSEMBLE, *BALD]
    refused(words, "2 members", "20 samples", "acquirer.passes=2")
    words += ["-o", "acquirer.passes=2"]
    assert cli(*words, "--rounds", 3, "--out", tmp_path / "whole").code == 0
    run = tmp_path / "run"
    assert cli(*words, "--rounds", 2, "--out", run).code == 0
    assert cli("resume", run, "--rounds", 3).code == 0
    asked = [(tmp_path / name / "rounds/02/questions.jsonl").read_text() for name in ("whole", "run")]
    assert asked[0] == asked[1]
    assert any(json.loads(line)["utility"] > 0 for line in asked[0].splitlines())
    assert cli("predict", run, camvid / "val", "--utility", "--out", tmp_path / "masks").code == 0
    assert cli("export", run, "--to", tmp_path / "model.pt2", "--size", "64x64").code == 0
    segmenter = Segmenter(run, device="cpu", registry=load_plugins())
    assert len(segmenter.model.members) == 2
    image = np.zeros((96, 96, 3), np.uint8)
    whole = segmenter.segment(image, utility=True).utility
    segmenter.tile = 64
    tiled = segmenter.segment(image, utility=True).utility
    assert whole is not None
    assert tiled is not None
    assert tiled.shape == whole.shape
