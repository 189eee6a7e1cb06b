"""A light head on frozen features, and the features' cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from alseg.engine.train import optimizer
from alseg.errors import AlsegError, UserMistake
from alseg.grid import sample
from alseg.protocols import Model
from alseg.settings import TrainSettings
from alseg.testing import check_model, check_recipe
from alseg_frozen.backbone import Backbone
from alseg_frozen.cache import FeatureStore, _sums, features_folder, image_keys
from alseg_frozen.models import FrozenModel, normalised

TINY, PYRAMID = "test_vit.r160_in1k", "test_resnet.r160_in1k"
TRAIN, VAL = 5, 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(timm.create_model(TINY).state_dict(), path)
    return path


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """How many images each call of a backbone saw; the calls are real."""
    calls: list[int] = []
    forward = Backbone.forward
    monkeypatch.setattr(Backbone, "forward", lambda self, images: calls.append(len(images)) or forward(self, images))
    return calls


@pytest.fixture
def words(monkeypatch, tmp_path, weights) -> list[object]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return [
        *("run", "--recipe", "frozen", "--encoder", TINY, "--weights", weights, "--device", "cpu", "--size", "64x64"),
        *("-o", f"dataset.train_images={TRAIN}", "-o", f"dataset.val_images={VAL}", "-o", "train.epochs=2"),
        *("-o", "report=false", "--first-pixels", 2, "--pixels-per-round", 2),
    ]


def outcomes(run: Path) -> list[tuple[object, ...]]:
    """What a run found, without seconds; and each round's model."""
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    models = [(run / "rounds" / f"{r['round']:02}" / "model.safetensors").read_bytes()[-2000:] for r in rounds]
    labels = (run / "labels.jsonl").read_text()
    return [*((r["miou"], r["loss"], model) for r, model in zip(rounds, models, strict=True)), (labels,)]


def made(encoder: str = TINY, head: str = "bn-linear", memory: int = 2**20, folder: Path | None = None, **options):
    torch.manual_seed(1)
    return FrozenModel(Backbone(encoder, "none", **options), 4, head, 8, 0.2, FeatureStore(memory, folder))


def test_each_images_features_are_computed_once_in_all_rounds_and_processes(cli, words, computed, tmp_path):
    """Trained and asked at the images' own size, so that both see the same pixels."""
    acquirers = ["--acquirer", "bald", "-o", "acquirer.passes=2", "--selector", "diverse"]
    outcome = cli(*words, *acquirers, "--rounds", 3, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert computed == [1] * (TRAIN + VAL)
    code = f"""
from alseg.cli.app import run_cli
from alseg_frozen.backbone import Backbone
def forward(self, images):
    raise AssertionError("computed again")
Backbone.forward = forward
words = {[str(word) for word in words]!r}
assert run_cli([*words, "--rounds", "2", "--acquirer", "entropy", "--out", {str(tmp_path / "other")!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_resumed_run_is_equal_with_a_cold_cache_and_with_none(cli, words, monkeypatch, tmp_path):
    assert cli(*words, "--rounds", 3, "--out", tmp_path / "whole").code == 0
    assert cli(*words, "--rounds", 1, "--out", tmp_path / "parts").code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cold"))
    assert cli("resume", tmp_path / "parts", "--rounds", 3).code == 0
    off = ["-o", "model.cache=none", "-o", "model.memory=0"]
    assert cli(*words, *off, "--rounds", 3, "--out", tmp_path / "off").code == 0
    assert outcomes(tmp_path / "whole") == outcomes(tmp_path / "parts") == outcomes(tmp_path / "off")


def test_with_augmentation_only_what_comes_again_is_written(cli, words, tmp_path):
    outcome = cli(*words, "--rounds", 1, "-o", "augment.jitter=1", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    files = list((tmp_path / "cache" / "alseg" / "features").rglob("*.features"))
    assert len(files) == VAL + 1  # and the training image that the asking was rehearsed on


@pytest.mark.parametrize("stored", ["whole", "head"])
def test_a_rounds_model_predicts_from_its_file(cli, words, weights, tmp_path, stored):
    run = tmp_path / "run"
    assert cli(*words, "-o", f"model.stored={stored}", "--rounds", 1, "--out", run).code == 0
    with safe_open(run / "rounds" / "00" / "model.safetensors", framework="pt") as file:
        held = [name for name in file.keys() if name.startswith("backbone.")]  # noqa: SIM118
    assert (held == ["backbone.reference"]) == (stored == "head")
    outcome = cli("export", run, "--to", tmp_path / "model.pt2")  # computes, and is checked against the cached
    assert outcome.code == 0, outcome.err
    kept = weights.read_bytes()
    try:
        weights.unlink()
        outcome = cli("export", run, "--to", tmp_path / "again.pt2")
        assert outcome.code == (0 if stored == "whole" else 1)
        assert stored == "whole" or "No weights file" in outcome.err
    finally:
        weights.write_bytes(kept)


def test_other_weights_than_a_model_was_trained_on_are_refused(tmp_path, weights):
    other = tmp_path / "weights.safetensors"
    other.write_bytes(weights.read_bytes())
    state = Backbone(TINY, str(other), whole=False).state_dict()
    taken = Backbone(TINY, "none", whole=False)
    taken.load_state_dict(state)
    assert taken.origin["weights"] == str(other)
    save_file(timm.create_model(TINY).state_dict(), other)
    with pytest.raises(AlsegError, match="no longer those"):
        Backbone(TINY, "none", whole=False).load_state_dict(state)


@pytest.mark.parametrize("head", ["linear", "bn-linear", "mlp"])
def test_logits_at_points_are_the_dense_ones(head):
    model = made(head=head).eval()
    assert isinstance(model, Model)
    with torch.no_grad():
        if isinstance(model.norm, torch.nn.BatchNorm2d):
            model.norm.running_mean.normal_(), model.norm.running_var.uniform_(0.5, 2)
        features = model.encode(torch.rand(2, 3, 90, 100))
        points = torch.cat([torch.rand(2, 3, 2), torch.tensor([[[0.0, 1.0]], [[0.999, 0.001]]])], 1)
        assert 4 * points.shape[1] < features.shape[-2] * features.shape[-1]
        assert torch.allclose(model.decode_at(features, points), sample(model.decode(features), points), atol=1e-5)
        many = torch.rand(2, 50, 2)
        assert torch.equal(model.decode_at(features, many), sample(model.decode(features), many))


def test_the_norm_learns_from_cells_that_chance_draws():
    norm, random = torch.nn.BatchNorm2d(3), np.random.default_rng(0)
    x, reference = random.normal(5, 1, (2, 3, 1, 4)), random.normal(1, 2, (2, 3, 1, 50))
    found = normalised(norm, torch.from_numpy(x).float(), torch.from_numpy(reference).float())
    mean, variance = reference.mean((0, 2, 3)), reference.var((0, 2, 3))
    wanted = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * mean, atol=1e-5)


def test_only_the_head_learns():
    model = made().train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    descent = optimizer(model, TrainSettings(learning_rate=1e-2))
    model.decode_at(model.encode(torch.rand(2, 3, 64, 64)), torch.rand(2, 2, 2)).square().sum().backward()
    descent.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"head.1.weight", "head.1.bias", "norm.weight"} <= changed
    assert not [name for name in changed if name.startswith("backbone.")]
    assert model.parameter_groups()["encoder"] == []


@pytest.mark.parametrize(
    ("encoder", "options", "channels", "grid"),
    [
        (TINY, {}, 64, (4, 5)),
        (TINY, {"layers": (0, -1)}, 128, (4, 5)),
        (TINY, {"scale": 2.0}, 64, (7, 9)),
        (PYRAMID, {}, 48 + 192 + 96, (8, 12)),
        (PYRAMID, {"layers": (-1,)}, 96, (2, 3)),
        ("test_convnext", {"layers": (0, 1)}, 24 + 32, (16, 24)),
    ],
)
def test_features_cover_the_image_evenly(encoder, options, channels, grid):
    """56 x 70 pixels are enlarged to whole patches of 16, or to whole strides of 32."""
    model = made(encoder, **options).eval()
    features = model.encode(torch.rand(1, 3, 56, 70))
    assert features.shape == (1, channels, *grid)
    assert features.dtype == torch.float16
    assert torch.allclose(model.embedding(features).norm(dim=1), torch.ones(1, *grid), atol=1e-5)


def test_features_are_timms_after_its_last_norm(weights):
    backbone = Backbone(TINY, str(weights))
    whole = timm.create_model(TINY, dynamic_img_size=True).eval()
    whole.load_state_dict(timm.models.load_state_dict(str(weights)))
    images = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        tokens = whole.forward_features((images - 0.5) / 0.5)[:, 1:]
        wanted = tokens.transpose(1, 2).unflatten(2, (4, 5))
        assert torch.allclose(backbone(images).float(), wanted, atol=4e-3)  # float16 of numbers below 4


def test_features_depend_on_the_image_alone():
    model = made(memory=0).eval()
    images = torch.rand(3, 3, 64, 64)
    assert torch.equal(model.encode(images)[1:2], model.encode(images[1:2]))


def test_keys_tell_any_two_images_apart():
    images = torch.rand(2, 3, 8, 9)
    keys = image_keys(images)
    assert keys == image_keys(images.contiguous(memory_format=torch.channels_last))
    assert keys[1:] == image_keys(images[1:])
    one_ulp, sign, swapped = images.clone(), images.clone(), images.clone()
    one_ulp[0, 0, 3, 3] = torch.nextafter(images[0, 0, 3, 3], torch.tensor(2.0))
    sign[0, 0, 3, 3] *= -1
    swapped[0, :, 0, 0], swapped[0, :, 0, 1] = images[0, :, 0, 1], images[0, :, 0, 0]
    changed = [one_ulp, sign, swapped, images.transpose(2, 3)]
    assert len({keys[0], *(image_keys(other)[0] for other in changed)}) == 5
    # as a GPU does it
    bits = torch.stack([other[0].flatten() for other in [images, *changed]]).view(torch.int32).long()
    sums = torch.stack(list(_sums(bits)), 1)
    assert all(len(set(column)) == 5 for column in sums.T.tolist())


@pytest.fixture
def numbers() -> torch.Tensor:
    return torch.rand(4, 2, 3).half()


def test_memory_keeps_the_last_used_within_its_bytes(numbers):
    store, size, calls = FeatureStore(2 * 48, None), 48, []

    def ask(key: str) -> None:
        store.get(key, CPU, lambda: calls.append(key) or numbers, lasting=True)

    assert numbers.numel() * 2 == size
    for key in "abacab":
        ask(key)
    assert calls == ["a", "b", "c", "b"]


def test_files_are_shared_damage_is_computed_anew_and_no_folder_is_no_error(numbers, tmp_path):
    def refuse() -> torch.Tensor:
        raise AssertionError

    FeatureStore(0, tmp_path).get("id-abc", CPU, lambda: numbers, lasting=True)
    (file,) = tmp_path.rglob("*.features")
    assert torch.equal(FeatureStore(0, tmp_path).get("id-abc", CPU, refuse, lasting=True), numbers)
    content = file.read_bytes()
    for damage in (content[:-2], content[:-1] + bytes([content[-1] ^ 1]), b"", b"\0" * len(content)):
        file.write_bytes(damage)
        assert torch.equal(FeatureStore(0, tmp_path).get("id-abc", CPU, lambda: numbers, lasting=True), numbers)
        assert file.read_bytes() == content
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert torch.equal(FeatureStore(0, occupied).get("id-abc", CPU, lambda: numbers, lasting=True), numbers)
    assert not list(tmp_path.rglob("*.tmp"))


def test_only_files_of_its_own_are_swept(numbers, tmp_path, monkeypatch):
    """The folder may be a user's, with other files in it."""
    identity = made().backbone.identity("cpu", "float32")
    old, new, killed = (f"{identity}-{key}" for key in image_keys(torch.rand(3, 3, 6, 5)))
    for key in (old, new):
        FeatureStore(0, tmp_path).get(key, CPU, lambda: numbers, lasting=True)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            FeatureStore(0, tmp_path).get(killed, CPU, lambda: numbers, lasting=True)
    own = {path: path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*/*")}
    assert len(own) == 3
    others = [
        tmp_path / name for name in ("my/project/draft.tmp", "my/project/all.features", f"{identity}/ab/draft.tmp")
    ]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", "utf-8")
    for path in [*others, *(path for path, name in own.items() if new.partition("-")[2] not in name)]:
        os.utime(path, (0, 0))
    (tmp_path / "swept").unlink()
    FeatureStore(0, tmp_path)
    (kept,) = (path for path in own if path.exists())
    assert new.partition("-")[2] in kept.name and all(path.exists() for path in others)


def test_the_folder_lies_beside_the_decoded_images(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features_folder("auto") == tmp_path / "alseg" / "features"
    assert features_folder("none") is None
    assert features_folder(str(tmp_path)) == tmp_path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": "nope"}, "timm has no encoder 'nope'"),
        ({"layers": "9"}, "model.layers takes numbers from -6 to 5"),
        ({"weights": "/nowhere.pth"}, "No weights file /nowhere.pth"),
    ],
)
def test_mistakes_are_told(registry, options, said):
    piece = registry.find("model", "frozen")
    with pytest.raises(UserMistake, match=said):
        piece.build(piece.resolve({"encoder": TINY, "weights": "none", "cache": "none", **options}), classes=3)


def test_a_transformer_of_one_size_says_so():
    model = made("mixer_s32_224").eval()
    with pytest.raises(UserMistake, match="cannot take images of 64x64"):
        model.encode(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("options", [{"head": "mlp"}, {"encoder": PYRAMID}])
def test_it_keeps_a_models_contract(registry, tmp_path, options):
    given = {"encoder": TINY, "weights": "none", "cache": str(tmp_path), **options}
    check_model("frozen", given, registry=registry)


def test_its_recipe_keeps_the_contract(registry):
    check_recipe("frozen", registry=registry)
