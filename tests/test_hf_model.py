"""Networks of transformers as models."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

transformers = pytest.importorskip("transformers", reason="the extra alseg[hf] is not installed")

from transformers_networks import write_checkpoint  # noqa: E402

from alseg.engine.passes import only_training  # noqa: E402
from alseg.errors import UserMistake  # noqa: E402
from alseg_hf.checkpoints import IMAGENET, Normalisation  # noqa: E402
from alseg_hf.layout import called  # noqa: E402
from alseg_hf.loading import load  # noqa: E402
from alseg_hf.network import TransformersModel  # noqa: E402
from alseg_hf.split import backbone_of  # noqa: E402

CUT = {
    "segformer": "segformer",
    "upernet-convnext": "backbone",
    "upernet-swin": "backbone",
    "beit": "beit",
    "data2vec-vision": "data2vec_vision",
    "dpt": "dpt",
    "dpt-hybrid": "dpt",
    "mobilenet_v2": "mobilenet_v2",
    "mobilevit": "mobilevit",
    "mobilevitv2": "mobilevitv2",
    "mask2former": "model.pixel_level_module.encoder",
    "maskformer": "model.pixel_level_module.encoder",
    "eomt": None,
}
FIXED, SQUARE = ("data2vec-vision", "dpt-hybrid", "eomt"), ("dpt",)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    made = {}

    def checkpoint(name: str):
        if name not in made:
            made[name] = write_checkpoint(tmp_path_factory.mktemp("checkpoints") / name, name)
        return made[name]

    return checkpoint


def loaded(folder, classes: int = 4, weights: str = "default", classifier: str = "new") -> TransformersModel:
    return load(classes, str(folder), "main", weights, classifier)


def images(*size: int) -> Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(0))


def tensors(value) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if hasattr(value, "values") else value
    return [found for part in parts if isinstance(part, Tensor | list | tuple | dict) for found in tensors(part)]


def own_scores(net: nn.Module, x: Tensor) -> Tensor:
    """What the network itself gives for normalised images, and for queries what is summed up of them, by NumPy."""
    outputs = called(net, x)
    if "logits" in outputs:
        return outputs["logits"]
    classes = np.exp(outputs["class_queries_logits"].double().numpy())
    classes = (classes / classes.sum(-1, keepdims=True))[..., :-1]
    masks = 1 / (1 + np.exp(-outputs["masks_queries_logits"].double().numpy()))
    return torch.from_numpy(np.log((classes[..., None, None] * masks[:, :, None]).sum(1) + 1e-6)).float()


@pytest.mark.parametrize("name", CUT)
@torch.no_grad()
def test_an_architecture_is_cut_and_gives_what_it_gives_by_itself(checkpoints, name):
    folder = checkpoints(name)
    model = loaded(folder, classes=7, classifier="stored").eval()
    assert model._cut.backbone == CUT[name]
    x = images(2, 3, 64, 64) if name in FIXED + SQUARE else images(2, 3, 64, 96)
    logits = model.decode(model.encode(x))
    assert logits.dtype == torch.float32
    assert logits.std() > 1e-3
    wanted = own_scores(model.net, (x - model.mean) / model.std)
    torch.testing.assert_close(interpolate(logits, wanted.shape[-2:], mode="bilinear"), wanted, rtol=1e-4, atol=1e-4)
    odd = model.encode(images(2, 3, 50, 71))
    before = [copy.deepcopy(tensor) for tensor in tensors(odd)]
    first, second = model.decode(odd), model.decode(odd)
    assert torch.equal(first, second)
    assert all(torch.equal(one, other) for one, other in zip(before, tensors(odd), strict=True)), "features changed"
    assert first.shape[2] * odd.shape[3] == first.shape[3] * odd.shape[2], "cells are not spread evenly"
    with torch.autocast("cpu", torch.bfloat16):
        low = model.decode(model.encode(x))
    assert low.dtype == torch.float32
    assert not torch.equal(low, low.bfloat16().float()), "rounded logits would tie"
    if hasattr(model, "embedding"):
        assert model.embedding(odd).shape[0] == 2
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    other = TransformersModel(None, 7, Normalisation(*IMAGENET), {})
    other.load_state_dict(state)
    torch.testing.assert_close(other.eval().decode(other.encode(x)), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["segformer", "upernet-convnext", "mask2former", "eomt"])
def test_its_parameters_are_in_two_groups_and_learn(checkpoints, name):
    model = loaded(checkpoints(name)).train()
    groups = model.parameter_groups()
    numbers = [id(p) for part in groups.values() for p in part]
    assert sorted(numbers) == sorted(id(p) for p in model.parameters())
    part = backbone_of(model.net)
    inside = {id(p) for p in (model.net.get_submodule(part) if part else model.net).parameters()}
    inside -= set() if part else {id(p) for p in model.net.class_predictor.parameters()}
    assert {id(p) for p in groups["encoder"]} == inside
    logits = model.decode(model.encode(images(2, 3, 64, 64)))
    assert logits.shape[1] == 4
    logits.log_softmax(1)[:, 0].mean().backward()
    for parameters in groups.values():
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)


def test_dropout_differs_from_pass_to_pass_on_the_same_features(checkpoints):
    model = loaded(checkpoints("segformer")).eval()
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    with torch.no_grad():
        features = model.encode(images(1, 3, 64, 64))
        plain = model.decode(features)
        with only_training(model, active):
            one, other = model.decode(features), model.decode(features)
        assert not torch.equal(one, other)
        assert torch.equal(model.decode(features), plain)


@pytest.mark.parametrize(
    ("name", "kind"), [("segformer", "Segformer"), ("mobilevit", "MobileViT"), ("segformer", None)]
)
def test_images_are_normalised_as_the_checkpoints_processor_does(tmp_path, name, kind):
    own = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]} if kind == "Segformer" else {}
    processor = kind and getattr(transformers, f"{kind}ImageProcessor")(**own)
    model = loaded(write_checkpoint(tmp_path / "checkpoint", name, processor=processor)).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    if processor is None:
        wanted = (pixels / 255 - np.array(IMAGENET[0])) / np.array(IMAGENET[1])
        wanted = torch.from_numpy(wanted).permute(2, 0, 1)[None].float()
    else:
        wanted = processor(pixels, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    scaled = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(model(scaled), called(model.net, wanted)["logits"], rtol=1e-4, atol=1e-4)


def test_the_classifier_is_new_unless_it_is_to_be_kept(checkpoints):
    folder = checkpoints("segformer")
    kept = loaded(folder, 7, classifier="stored").net.decode_head.classifier.weight
    new, other = (loaded(folder, 7).net.decode_head.classifier.weight for _ in range(2))
    assert not torch.equal(kept, new)
    assert not torch.equal(new, other)
    with pytest.raises(UserMistake, match="no classifier of 4 classes"):
        loaded(folder, 4, classifier="stored")


def test_the_origin_names_the_weights(checkpoints):
    folder = checkpoints("segformer")
    origin = loaded(folder).origin
    assert origin["checkpoint"] == str(folder)
    assert origin["sha256"] == loaded(folder, 3).origin["sha256"], "the classes' layers do not count"
    assert loaded(folder, weights="none").origin["sha256"] == ""


def test_an_encoder_alone_gets_a_new_head(tmp_path, checkpoints):
    net = loaded(checkpoints("segformer")).net
    classifier = transformers.SegformerForImageClassification(net.config)
    classifier.segformer.load_state_dict(net.segformer.state_dict())
    classifier.save_pretrained(tmp_path / "encoder")
    model = loaded(tmp_path / "encoder")
    found, wanted = model.net.segformer.state_dict(), net.segformer.state_dict()
    assert all(torch.equal(tensor, found[key]) for key, tensor in wanted.items())


def test_what_cannot_be_loaded_is_refused_in_a_sentence(tmp_path, checkpoints, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserMistake, match=r"nobody/nothing could not be had: there is no such folder"):
        loaded("nobody/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserMistake, match="holds no configuration"):
        loaded(tmp_path / "empty")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((checkpoints("segformer") / "config.json").read_bytes())
    torch.save({"a": torch.zeros(1)}, pickled / "pytorch_model.bin")
    with pytest.raises(UserMistake, match="pickled weights, which can run code, are never loaded"):
        loaded(pickled)
    for kind, said in (("vit", "no semantic segmentation network"), ("detr", "no semantic segmentation network")):
        (tmp_path / "empty" / "config.json").write_text(json.dumps({"model_type": kind}))
        with pytest.raises(UserMistake, match=said):
            loaded(tmp_path / "empty")
    (tmp_path / "empty" / "config.json").write_text(
        json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "code.Config"}})
    )
    (tmp_path / "empty" / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserMistake, match="brings code of its own, which is never run"):
        loaded(tmp_path / "empty")
    assert not (tmp_path / "ran").exists()


def test_weights_that_lack_the_backbone_are_refused(tmp_path, checkpoints):
    net = loaded(checkpoints("segformer")).net
    half = dict(list(net.state_dict().items())[9:])
    net.save_pretrained(tmp_path / "half", state_dict=half)
    with pytest.raises(UserMistake, match="lack the backbone's"):
        loaded(tmp_path / "half")
