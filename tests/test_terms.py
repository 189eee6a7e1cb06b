"""Training terms: how they are chosen, trained, stored and asked; the learning loss against its definition."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from bands import CPU, CROP, Bands, source_of
from conftest import SMALL
from scipy import stats
from test_training import Toy
from torch import Tensor, nn

from alseg.config import flatten, resolve
from alseg.engine.batches import PADDING, Batch
from alseg.engine.predict import ModelPrediction, predict
from alseg.engine.team import ALONE, Team
from alseg.engine.terms import attach, term_called
from alseg.engine.train import can_record, loss_with_terms, optimizer, point_loss, settle_batch_norms, train
from alseg.errors import AlsegError, UserMistake
from alseg.grid import sample
from alseg.models import Models
from alseg.plugins import load_plugins
from alseg.settings import TrainSettings
from alseg.values import Taught
from alseg_pixelpick.deeplab import DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder, last_four
from alseg_pixelpick.fpn import FPN
from alseg_pixelpick.learning_loss import LearningLoss, channels_of, maps_of


class Watching(nn.Module):
    """Pulls one number of its own towards the mean loss, and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm2d(2)
        self.taught: list[Taught] = []
        self.done: list[float] = []

    def loss(self, model: Any, taught: Taught) -> Tensor:
        self.taught.append(taught)
        self.norm(torch.randn(4, 2, 3, 3))
        return (self.guess - taught.losses.detach().mean()).square()

    def after_step(self, model: Any, done: float) -> None:
        assert isinstance(model, Toy)
        self.done.append(done)

    def seen(self, features: Tensor) -> Tensor:
        return features[:, :1]


def toy_with(term: nn.Module) -> Toy:
    torch.manual_seed(3)
    model = Toy()
    attach(model, {"watching.it": term})
    return model


def deeplab() -> DeepLabV3Plus:
    torch.manual_seed(0)
    return DeepLabV3Plus(Encoder("test_resnet.r160_in1k", "none", 16), 3, 8)


def learning_loss(model: nn.Module, **changes: float) -> LearningLoss:
    torch.manual_seed(1)
    return LearningLoss(model, **{"width": 8, "weight": 1.0, "margin": 1.0, "joint": 0.5, **changes})


def test_a_term_is_trained_with_the_model_and_told_of_each_step():
    term, images = Watching(), Bands(4)
    model, source = toy_with(term), source_of(images, images.labels(3), batch_size=2)
    settings = TrainSettings(epochs=2, learning_rate=1e-2, workers=0)
    result = train(model, source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
    assert term.done == [0.25, 0.5, 0.75, 1.0]
    assert len(term.taught) == result.steps == 4
    assert float(term.guess.detach()) > 0
    assert any(name.startswith("training_terms.watching_it.") for name in model.state_dict())
    taught = term.taught[0]
    assert taught.logits.shape == (2, 3, 3)
    assert taught.losses.shape == taught.classes.shape == taught.points.shape[:2]
    wanted = nn.functional.cross_entropy(taught.logits, taught.classes, reduction="none", ignore_index=PADDING)
    torch.testing.assert_close(taught.losses, wanted)


def test_what_terms_give_is_added():
    term, none = Watching(), torch.full((2, 1), PADDING)
    model, points = toy_with(term).eval(), torch.rand(2, 4, 2)
    classes = torch.cat([torch.tensor([[0, 1, 2], [1, 1, 0]]), none], 1)
    batch = Batch(torch.rand(2, 3, 32, 32), points, classes)
    both = loss_with_terms(model, batch, False, [term, term])
    assert float(term.taught[0].losses[0, 3].detach()) == 0
    torch.testing.assert_close(both, point_loss(model, batch, False) + 2 * term.loss(model, term.taught[0]))


def test_a_models_own_training_does_not_depend_on_a_term_that_does_not_move_it():
    images, settings = Bands(4), TrainSettings(epochs=2, learning_rate=1e-2, workers=0)
    source, plain, joined = source_of(images, images.labels(3)), toy_with(Watching()), toy_with(Watching())
    del plain.training_terms
    for model in (plain, joined):
        train(model, source, settings, seed=0, round=0, device=CPU, precision=torch.float32)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, joined.state_dict()[name]), name


@pytest.mark.parametrize("kind", ["deeplab", "fpn"])
def test_every_parameter_is_in_the_optimiser_once(kind: str):
    model = deeplab() if kind == "deeplab" else FPN(Encoder("test_resnet.r160_in1k", "none", 8, last_four), 3, 8)
    count = len([p for group in optimizer(model, TrainSettings()).param_groups for p in group["params"]])
    attach(model, {"learning-loss": learning_loss(model)})
    held = [id(p) for group in optimizer(model, TrainSettings()).param_groups for p in group["params"]]
    assert len(held) == len(set(held)) == len(list(model.parameters())) > count


def test_a_terms_norms_are_not_settled_with_the_decoders():
    model, images = deeplab(), Bands(4)
    attach(model, {"watching": (term := Watching())})
    term.norm.running_mean.fill_(7)
    model.train()
    settle_batch_norms(model, source_of(images, images.labels(2)).epoch(0), CPU, torch.float32)
    assert (term.norm.running_mean == 7).all()


def test_what_a_term_says_is_asked_by_name():
    model = toy_with(Watching()).eval()
    images = [np.random.default_rng(0).integers(0, 256, (32, 24, 3)).astype(np.uint8)]
    prediction = predict(model, images, None, CPU, torch.float32)
    assert prediction.term("watching.it").shape == (1, 32, 24)
    with pytest.raises(UserMistake, match=r"no training term 'other'.* -o terms=other"):
        prediction.term("other")
    with pytest.raises(AlsegError, match="no model"):
        ModelPrediction(lambda: torch.zeros(1, 2, 2, 2), (2, 2)).term("other")


def test_what_cannot_be_attached_is_said():
    taken = Toy()
    attach(taken, {"mine": Watching()})
    with pytest.raises(AlsegError, match="has something called training_terms"):
        attach(taken, {"mine": Watching()})
    joint = Toy()
    joint.members = nn.ModuleList([Toy(), Toy()])
    with pytest.raises(UserMistake, match="members"):
        attach(joint, {"mine": Watching()})
    with pytest.raises(UserMistake, match="torchrun"):
        Team(0, 2).check_terms(["mine"])
    ALONE.check_terms(["mine"])
    Team(0, 2).check_terms([])


def test_a_step_with_terms_is_not_recorded():
    gpu, settings = torch.device("cuda"), TrainSettings()
    assert can_record(settings, gpu, ALONE, [])
    assert not can_record(settings, gpu, ALONE, [Watching()])
    assert not can_record(settings, CPU, ALONE, [])
    assert not can_record(settings, gpu, Team(0, 2), [])
    assert not can_record(replace(settings, cuda_graph=False), gpu, ALONE, [])


def taught_of(features: Any, losses: np.ndarray, seed: int = 0) -> Taught:
    torch.manual_seed(seed)
    count, points = losses.shape
    classes = torch.zeros(count, points, dtype=torch.int64)
    classes[0, -1] = PADDING
    where = torch.rand(count, points, 2)
    return Taught(
        torch.zeros(count, 3, *CROP), features, torch.zeros(count, 3, points), where, classes, torch.tensor(losses)
    )


def test_the_ranking_loss_is_that_of_the_paper():
    model = deeplab().eval()
    term, features = learning_loss(model, weight=0.5, margin=0.7), model.encode(torch.rand(3, 3, *CROP))
    losses = np.random.default_rng(0).random((3, 5)).astype(np.float32)
    taught = taught_of(features, losses)
    torch.manual_seed(4)
    found = float(term.loss(model, taught).detach())
    torch.manual_seed(4)
    keys = torch.rand(15)
    keys[4] = 2  # which is padding
    order = keys.argsort()
    seen = term.seen(features).detach().double().numpy()
    height, width = seen.shape[2:]
    predicted = []
    for i in range(3):
        for y, x in taught.points[i].double().numpy():
            rows = np.clip(1 - abs(np.arange(height) - np.clip(y * height - 0.5, 0, height - 1)), 0, None)
            columns = np.clip(1 - abs(np.arange(width) - np.clip(x * width - 0.5, 0, width - 1)), 0, None)
            predicted.append(rows @ seen[i, 0] @ columns)
    terms = []
    for i, j in order[:14].view(7, 2).tolist():
        sign = 1 if losses.ravel()[i] > losses.ravel()[j] else -1
        terms.append(max(0, -sign * (predicted[i] - predicted[j]) + 0.7))
    assert found == pytest.approx(0.5 * np.mean(terms), rel=1e-4)


def test_it_moves_the_model_only_while_that_is_joint():
    model = deeplab()
    term, losses = learning_loss(model, joint=0.5), np.random.default_rng(0).random((2, 4)).astype(np.float32)
    for done, moves in ((0.25, True), (0.5, False)):
        term.after_step(model, done)
        model.zero_grad()
        term.loss(model, taught_of(model.encode(torch.rand(2, 3, *CROP)), losses)).backward()
        assert any(p.grad is not None and bool(p.grad.any()) for p in model.encoder.parameters()) is moves
        assert all(p.grad is not None for p in term.parameters())


def test_it_learns_where_losses_are_high():
    images = torch.rand(4, 3, *CROP)
    model = deeplab().eval()
    term = learning_loss(model, joint=0)
    descent = torch.optim.Adam(term.parameters(), lr=1e-2)
    features = [f.detach() for f in model.encode(images)]
    bright = nn.functional.interpolate(features[0][:, :1], size=(16, 16), mode="bilinear")
    for step in range(120):
        torch.manual_seed(step)
        points = torch.rand(4, 20, 2)
        losses = sample(bright, points)[:, 0]
        taught = Taught(images, tuple(features), torch.zeros(4, 3, 20), points, torch.zeros(4, 20).long(), losses)
        descent.zero_grad()
        term.loss(model, taught).backward()
        descent.step()
    seen = term.seen(features).detach().flatten().numpy()
    assert stats.spearmanr(seen, bright.flatten().numpy()).statistic > 0.7


def test_it_is_built_for_a_model_of_one_image_size():
    """As transformers with positions of a fixed grid are."""

    class OneSize(nn.Module):
        def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
            if images.shape[-2:] != (224, 224):
                raise UserMistake("This encoder takes images of 224x224 alone.")
            return torch.zeros(1, 5, 56, 56), torch.zeros(1, 9, 14, 14)

    assert channels_of(OneSize()) == [5, 9]

    class NoSize(nn.Module):
        def encode(self, images: Tensor) -> Tensor:
            raise UserMistake(f"Not {images.shape[-1]}.")

    with pytest.raises(UserMistake, match=r"Not 64\."):
        channels_of(NoSize())


@pytest.mark.parametrize("kind", ["deeplab", "fpn"])
@torch.no_grad()
def test_it_sees_every_map_of_the_encoder(kind: str):
    model = deeplab() if kind == "deeplab" else FPN(Encoder("test_resnet.r160_in1k", "none", 8, last_four), 3, 8)
    model.train()
    before = copy.deepcopy(model.state_dict())
    term = learning_loss(model)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    model.eval()
    attach(model, {"learning-loss": term})
    features = model.encode(torch.rand(2, 3, 64, 96))
    assert channels_of(model) == [each.shape[1] for each in maps_of(features)]
    assert len(channels_of(model)) == (2 if kind == "deeplab" else 4)
    seen = term.seen(features)
    assert seen.shape == (2, 1, 16, 24)
    quick = model.for_inference(torch.float32)
    images = torch.rand(1, 3, 64, 64)
    found = quick.training_terms["learning-loss"].seen(quick.encode(images))
    torch.testing.assert_close(found, term.seen(model.encode(images)), atol=1e-4, rtol=1e-4)


def settings_of(**flags: Any) -> dict[str, Any]:
    return flatten({"dataset": "shapes", "dataset.train_images": 4, **flags})


def test_terms_are_settings(registry):
    flags = settings_of(terms="learning-loss", **{"learning-loss": {"weight": "0.5"}})
    config = resolve(registry, {}, flags).config
    assert [term.name for term in config.terms] == ["learning-loss"]
    assert config.terms[0].options == {"weight": 0.5, "width": 64, "margin": 1.0, "joint": 0.6}
    assert config.nested()["terms"] == ["learning-loss"]
    assert config.nested()["learning-loss"]["weight"] == 0.5
    again = resolve(registry, flatten(config.nested()), {}).config
    assert again == config
    plain = resolve(registry, {}, settings_of())
    assert "terms" not in plain.config.nested()
    assert resolve(registry, {}, settings_of(terms="none")).config == plain.config


def test_a_term_is_asked_by_its_own_name_whoever_it_is_of(registry):
    config = resolve(registry, {}, settings_of(terms="alseg:learning-loss", **{"model.channels": 8})).config
    model = Models(registry, config, 3, CPU).fresh(pretrained=False)
    assert term_called(model, "learning-loss") is not None
    twice = resolve(registry, {}, settings_of(terms="alseg:learning-loss,learning-loss")).config
    with pytest.raises(UserMistake, match="Two training terms are called 'learning-loss'"):
        Models(registry, twice, 3, CPU).fresh(pretrained=False)


def test_a_terms_dropout_makes_no_committee():
    model = deeplab().eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    attach(model, {"watching": nn.Sequential(Watching(), nn.Dropout(0.5))})
    with pytest.raises(UserMistake, match="has no dropout with a rate above 0"):
        predict(model, [np.zeros((32, 32, 3), np.uint8)], None, CPU, torch.float32).samples(2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"terms": "learning-los"}, "no term 'learning-los'; did you mean learning-loss"),
        ({"terms": "learning-loss,learning-loss"}, "given twice"),
        ({"terms": "learning-loss", "learning-loss.wight": 1}, "no option 'wight'; did you mean weight, width"),
        ({"terms": "learning-loss", "learning-loss.weight": "much"}, r"learning-loss\.weight takes a number"),
        ({"learning-loss.weight": 1}, "'learning-loss', which is not taken: -o terms=learning-loss"),
        ({"terms": "learning-loss", "labels": "all"}, "labels = all"),
    ],
)
def test_terms_that_make_no_sense(registry, flags, words):
    with pytest.raises(UserMistake, match=words):
        resolve(registry, {}, settings_of(**{key.replace("-", "_"): value for key, value in flags.items()}))


AVERAGE = """\
from alseg import hookimpl

def average(model, rate: float = 0.5):
    from torch import nn
    class Average(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = 0
            for name, tensor in model.named_parameters():
                self.register_buffer(name.replace(".", "-"), tensor.detach().clone())
        def loss(self, model, taught):
            return taught.losses.sum() * 0
        def after_step(self, model, done):
            held = dict(self.named_buffers())
            for name, tensor in model.named_parameters():
                mean = held[name.replace(".", "-")]
                mean.lerp_(tensor.detach(), rate)
                if done == 1:
                    tensor.data.copy_(mean)
    return Average()

@hookimpl
def register_terms(register):
    register("average", average)
"""


def test_a_plugin_averages_weights(cli, camvid, tmp_path):
    file, run = tmp_path / "average.py", tmp_path / "run"
    file.write_text(AVERAGE)
    words = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 1]
    outcome = cli(*words, "-o", "terms=average", "-o", "average.rate=0.25", "--out", run)
    assert outcome.code == 0, outcome.err
    assert tomllib.loads((run / "run.toml").read_text())["average"] == {"rate": 0.25}
    from alseg.segment import Segmenter

    model = Segmenter(run, device="cpu", registry=load_plugins([file])).model
    held = dict(model.training_terms["average"].named_buffers())
    assert torch.equal(model.classifier.weight, held["classifier-weight"])
    alone = Segmenter(run, device="cpu", registry=load_plugins(third_party=False)).model
    assert torch.equal(alone.classifier.weight, model.classifier.weight), "a term's plugin is not needed to predict"


def test_a_run_with_learning_loss_is_resumed_predicts_and_is_exported(cli, camvid, tmp_path, refused):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--acquirer", "learning-loss"]
    refused(words, "no training term 'learning-loss'", "-o terms=learning-loss")
    words += ["-o", "terms=learning-loss", "-o", "learning-loss.width=4"]
    refused([*words, "--model", "ensemble:deeplabv3plus"], "members")
    words += ["--first-pixels", 3, "--pixels-per-round", 3]
    assert cli(*words, "--rounds", 3, "--out", tmp_path / "whole").code == 0
    run = tmp_path / "run"
    assert cli(*words, "--rounds", 2, "--out", run).code == 0
    assert tomllib.loads((run / "run.toml").read_text())["learning-loss"]["width"] == 4
    assert cli("resume", run, "--rounds", 3).code == 0
    asked = [(tmp_path / name / "rounds/02/questions.jsonl").read_text() for name in ("whole", "run")]
    assert asked[0] == asked[1]
    assert cli("predict", run, camvid / "val", "--utility", "--tile", 48, "--out", tmp_path / "masks").code == 0
    assert cli("export", run, "--to", tmp_path / "model.pt2", "--size", "64x64").code == 0
