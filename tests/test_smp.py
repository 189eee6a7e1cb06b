"""The architectures of segmentation-models-pytorch as models."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from hashlib import sha256

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from alseg.engine.device import choose_device
from alseg.engine.passes import Draw, Passes
from alseg.engine.train import optimizer
from alseg.errors import UserMistake
from alseg.protocols import Model
from alseg.settings import TrainSettings
from alseg.testing import check_model
from alseg_smp.plugin import ARCHITECTURES

smp = pytest.importorskip("segmentation_models_pytorch")

TINY = "tu-test_resnet.r160_in1k"
NARROW: dict[str, dict] = {
    **{name: {"widths": (8, 8, 8, 8, 8)} for name in ("unet", "unetplusplus", "manet")},
    **{
        name: {"channels": 8} for name in ("fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet", "segformer")
    },
    "linknet": {},
    "dpt": {"encoder": "tu-test_vit.r160_in1k", "widths": (8, 8), "fusion_channels": 8},
}
NARROW["manet"] |= {"pab_channels": 8}
NARROW["fpn"] |= {"channels": 32, "pyramid_channels": 8}
STRIDES = {"fpn": 4, "pspnet": 8, "deeplabv3": 8, "deeplabv3plus": 4, "pan": 4, "upernet": 4, "segformer": 4, "dpt": 2}
CPU = choose_device("cpu")


def built(registry, name: str, classes: int = 5, **options):
    piece = registry.find("model", f"smp-{name}")
    given = {"encoder": TINY, "weights": "none", **NARROW[name], **options}
    return piece.build(piece.resolve(given), classes=classes)


def test_the_names_are_the_librarys():
    assert set(ARCHITECTURES) == set(smp.MODEL_ARCHITECTURES_MAPPING)


def test_without_the_library_all_are_listed_and_say_what_to_install():
    code = """
import sys
sys.modules["segmentation_models_pytorch"] = None
from alseg.plugins import load_plugins
from alseg.errors import UserMistake
registry = load_plugins()
assert "torch" not in sys.modules
pieces = [piece for piece in registry.of("model") if piece.name.startswith("smp-")]
print(len(pieces), len(pieces[0].options()))
try:
    pieces[0].build(pieces[0].resolve({"weights": "none"}), classes=3)
except UserMistake as mistake:
    print(mistake)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    counts, said = done.stdout.splitlines()
    assert counts == f"{len(ARCHITECTURES)} {len(('encoder', 'weights', 'depth', 'widths', 'norm', 'attention')) + 1}"
    assert said == "The model smp-unet needs segmentation-models-pytorch: pip install 'alseg[smp]'."


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_lie_on_the_decoders_grid_and_learning_moves_both_parts(registry, name):
    """An odd size: the image is enlarged to whole strides, the grid is what the decoder's stride makes of that."""
    model = built(registry, name)
    assert isinstance(model, Model)
    seen: list[tuple[int, ...]] = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[-2:])))
    images = torch.rand(2, 3, 50, 70)
    descent = optimizer(model, TrainSettings(learning_rate=1e-2, encoder_rate=1))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    model.train()
    logits = model.decode(model.encode(images))
    stride = STRIDES.get(name, 1)
    enlarged = seen[0]
    assert all(length % model.encoder.output_stride == 0 for length in enlarged)
    least = 128 if name == "pan" else 50
    assert all(
        most >= length >= own
        for length, own, most in zip(enlarged, (max(50, least), max(70, least)), (128, 128), strict=True)
    )
    assert logits.shape == (2, 5, enlarged[0] // stride, enlarged[1] // stride)
    logits.square().mean().backward()
    descent.step()
    groups = model.parameter_groups()
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    for parameters in groups.values():
        held = {id(parameter) for parameter in parameters}
        assert any(not torch.equal(p, before[key]) for key, p in model.named_parameters() if id(p) in held)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_decoding_leaves_the_features_and_gives_float32_under_bfloat16(registry, name):
    model = built(registry, name)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        model.eval()
        features = model.encode(images)
        kept = [each.clone() for each in features.maps]
        plain = model.decode(features)
        assert all(0 < each.shape[1] != 3 for each in features.maps)  # neither the image nor a place holder
        for module in model.modules():  # what samples by dropout do
            module.training = isinstance(module, torch.nn.Dropout | torch.nn.Dropout2d)
        model.decode(features)
        model.eval()
        assert torch.equal(model.decode(features), plain)
        assert all(map(torch.equal, features.maps, kept))
        assert model.embedding(features).shape[-2:] == plain.shape[-2:]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model.decode(model.encode(images))
    assert low.dtype == torch.float32
    assert torch.unique(low).numel() > 256  # more than bfloat16 numbers of one magnitude would be


def test_without_resizing_logits_are_the_librarys_before_its_upsampling(registry):
    model = built(registry, "deeplabv3plus").eval()
    images = torch.rand(1, 3, 64, 96)
    network = smp.create_model("deeplabv3plus", TINY, None, classes=5, decoder_channels=8, upsampling=1).eval()
    parts = {"encoder": model.encoder, "decoder": model.decoder, "segmentation_head.0": model.classifier}
    network.load_state_dict({f"{a}.{key}": t for a, part in parts.items() for key, t in part.state_dict().items()})
    with torch.no_grad():
        wanted = network((images - 0.5) / 0.5)  # what timm says of this encoder
        assert torch.allclose(model(images), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["fpn", "pspnet", "deeplabv3", "deeplabv3plus", "dpt"])
def test_samples_differ_by_dropout(registry, name):
    torch.manual_seed(0)  # with few channels some weights leave those that dropout tells apart at zero
    model = built(registry, name, **({} if name == "dpt" else {"dropout": 0.5})).eval()
    passes = Passes(model, lambda: torch.rand(1, 3, 64, 64), CPU, torch.float32, Draw(0, 0, ("a",)))
    one, other = passes.samples(2)
    assert not torch.equal(one, other)


def test_a_network_without_dropout_says_so(registry):
    passes = Passes(
        built(registry, "unet").eval(), lambda: torch.rand(1, 3, 64, 64), CPU, torch.float32, Draw(0, 0, ("a",))
    )
    with pytest.raises(UserMistake, match="has no dropout"):
        next(passes.samples(2))


@pytest.mark.parametrize(
    ("encoder", "mean"), [(TINY, 0.5), ("resnet18", 0.485), ("xception", 0.5), ("dpn68", 124 / 255)]
)
def test_images_are_normalised_as_the_encoder_was_pretrained(registry, encoder, mean):
    model = built(registry, "linknet" if encoder != "xception" else "fpn", encoder=encoder)
    assert float(model.mean[0, 0]) == pytest.approx(mean)


def test_weights_from_a_file_are_all_taken(registry, tmp_path):
    of_timm, of_library = tmp_path / "timm.safetensors", tmp_path / "library.safetensors"
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet.r160_in1k").eval()
    save_file(whole.state_dict(), of_timm)
    save_file(smp.encoders.get_encoder("resnet18").state_dict(), of_library)
    model = built(registry, "unet", weights=str(of_timm)).eval()
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.forward_features((images - 0.5) / 0.5)
        assert torch.allclose(model.encode(images).maps[-1], wanted, atol=1e-5)
    assert model.origin == {
        "encoder": TINY,
        "weights": str(of_timm),
        "sha256": sha256(of_timm.read_bytes()).hexdigest(),
    }
    model = built(registry, "unet", encoder="resnet18", weights=str(of_library))
    stored = load_file(of_library)
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.encoder.state_dict().items())
    with pytest.raises(UserMistake, match="do not fit the encoder"):
        built(registry, "unet", encoder="resnet18", weights=str(of_timm))
    with pytest.raises(UserMistake, match="do not fit the encoder"):
        built(registry, "unet", weights=str(of_library))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("unet", {"encoder": "resnet_18"}, "nor timm has an encoder 'resnet_18'; did you mean resnet18"),
        ("unet", {"encoder": "tu-nope"}, "timm has no encoder 'nope'"),
        ("unet", {"widths": (8, 8)}, "a number for each of 5 levels, not 2"),
        ("unetplusplus", {"encoder": "mit_b0"}, "smp-unetplusplus cannot be built on the encoder 'mit_b0'"),
        ("dpt", {"encoder": "resnet18"}, "smp-dpt cannot be built"),
        ("unet", {"weights": "/nowhere.pth"}, "No weights file /nowhere.pth"),
    ],
)
def test_mistakes_are_told(registry, name, options, said):
    with pytest.raises(UserMistake, match=said):
        built(registry, name, **options)


def test_an_encoder_that_the_library_has_not_is_timms(registry):
    names = ("resnet18", TINY, TINY.removeprefix("tu-"))
    models = [built(registry, "linknet", encoder=name) for name in names]
    assert [model.origin["encoder"] for model in models] == ["resnet18", TINY, TINY]


@pytest.mark.parametrize("name", ["unet", "fpn"])
def test_a_dataset_whose_recipe_says_which_encoder_goes_with_them(cli, tmp_path, name):
    words = ["--model", f"smp-{name}", "-o", "dataset.train_images=4", "-o", "dataset.val_images=2", "--device", "cpu"]
    outcome = cli("run", *words, "-o", "train.epochs=1", "-o", "report=false", "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def test_a_run_on_shapes_is_predicted_from_its_files_alone(cli, tmp_path):
    words = ["--model", "smp-deeplabv3plus", "--encoder", TINY, "--weights", "none", "--device", "cpu"]
    words += ["-o", "model.channels=8", "-o", "dataset.train_images=4", "-o", "dataset.val_images=2"]
    words += ["-o", "train.epochs=1", "-o", "report=false", "--acquirer", "bald", "-o", "acquirer.passes=2"]
    run = tmp_path / "run"
    outcome = cli("run", *words, "--selector", "diverse", "--size", "60x52", "--rounds", 2, "--out", run)
    assert outcome.code == 0, outcome.err
    record = tomllib.loads((run / "run.toml").read_text())
    assert record["record"]["weights"] == {"encoder": TINY, "weights": "none", "sha256": ""}
    assert record["model"]["rates"] == [12, 24, 36]
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    assert [line["round"] for line in rounds] == [0, 1]
    outcome = cli("export", run, "--to", tmp_path / "model.pt2")
    assert outcome.code == 0, outcome.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_keeps_a_models_contract(registry, name):
    options = {"encoder": TINY, "weights": "none", **NARROW[name]}
    check_model(f"smp-{name}", options, registry=registry)
