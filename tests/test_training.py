"""Training at the points: loss, learning rates, repeatability, batch norms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from bands import CPU, CROP, PLAIN, Bands, source_of
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from alseg.engine.batches import PADDING, Batch, BatchSource
from alseg.engine.device import deterministic
from alseg.engine.train import TrainResult, point_loss, rate_factors, settle_batch_norms, train
from alseg.grid import fractions
from alseg.settings import Augmentation, TrainSettings
from alseg.values import PixelLabels
from alseg_pixelpick.deeplab import DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder


class Toy(nn.Module):
    """Two convolutions with a batch norm each, at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 4, stride=4, bias=False)
        self.first_norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(8)
        self.classifier = nn.Conv2d(8, 3, 1)

    def encode(self, images: Tensor) -> Tensor:
        return torch.relu(self.first_norm(self.first(images)))

    def decode(self, features: Tensor) -> Tensor:
        return self.classifier(torch.relu(self.second_norm(self.second(features))))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        encoder = [*self.first.parameters(), *self.first_norm.parameters()]
        known = {id(p) for p in encoder}
        return {"encoder": encoder, "decoder": [p for p in self.parameters() if id(p) not in known]}


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(11)
    return Toy() if kind == "toy" else DeepLabV3Plus(Encoder("test_resnet.r160_in1k", "none", 16), 3, 8)


def trained(
    kind: str, source: BatchSource, seed: int = 0, round: int = 0, **changes: object
) -> tuple[nn.Module, TrainResult]:
    settings = replace(TrainSettings(epochs=2, learning_rate=1e-3, workers=0), **changes)
    model = model_of(kind)
    result = train(model, source, settings, seed=seed, round=round, device=CPU, precision=torch.float32)
    return model, result


def is_finite(model: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values())


def test_the_loss_is_the_mean_cross_entropy_over_the_points():
    model = model_of("toy").eval()
    images = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
    pixels = torch.tensor([[[0, 0], [31, 39], [7, 12], [16, 5]], [[0, 39], [20, 20], [9, 9], [9, 9]]])
    classes = torch.tensor([[0, 2, 1, 1], [2, 0, PADDING, PADDING]])
    logits = model.decode(model.encode(images)).detach().double().numpy()
    height, width = logits.shape[2:]
    terms = []
    for i, k in (classes != PADDING).nonzero().tolist():
        y, x = (
            (p + 0.5) * c / s - 0.5 for p, c, s in zip(pixels[i, k].tolist(), (height, width), (32, 40), strict=True)
        )
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        rows = np.clip(1 - abs(np.arange(height) - y), 0, None)
        columns = np.clip(1 - abs(np.arange(width) - x), 0, None)
        at = np.einsum("chw,h,w->c", logits[i], rows, columns)
        terms.append(math.log(np.exp(at).sum()) - at[classes[i, k]])
    loss = point_loss(model, Batch(images, fractions(pixels, (32, 40)), classes), False)
    assert float(loss.detach()) == pytest.approx(sum(terms) / 6, rel=1e-5)


def test_the_two_decoders_give_one_loss():
    model = model_of("deeplab").eval()
    images = Bands(2)
    for batch in source_of(images, images.labels(5)).epoch(0):
        at_points, dense = (point_loss(model, batch, way) for way in (True, False))
        torch.testing.assert_close(at_points, dense)


@pytest.mark.parametrize(("kind", "at_points"), [("toy", False), ("deeplab", False), ("deeplab", True)])
def test_a_batch_without_labels_has_loss_0_and_no_gradient(kind: str, at_points: bool):
    model = model_of(kind).train()
    none = torch.full((2, 3), PADDING)
    loss = point_loss(model, Batch(torch.rand(2, 3, *CROP), torch.full((2, 3, 2), 0.5), none), at_points)
    loss.backward()
    assert float(loss.detach()) == 0
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients)


@pytest.mark.parametrize("kind", ["toy", "deeplab"])
def test_points_may_all_be_cropped_away(kind: str):
    images = Bands(2)
    # shown nine times as large, the corner's pixel is almost never in the crop
    corner = PixelLabels(tuple(images.label(i, 0, 0, "left") for i in range(2)))
    source = source_of(images, corner, replace(PLAIN, scale=(9.0, 9.0)))
    assert all((batch.classes == PADDING).all() for epoch in range(3) for batch in source.epoch(epoch))
    model, result = trained(kind, source)
    assert result.loss == 0
    assert is_finite(model)


@pytest.mark.parametrize("kind", ["toy", "deeplab"])
def test_a_pool_of_one_image_trains(kind: str):
    images = Bands(1)
    source = source_of(images, images.labels(6))
    (batch,) = source.epoch(0)
    assert len(batch.images) == 2
    assert not torch.equal(batch.images[0], batch.images[1])
    model, result = trained(kind, source, epochs=3)
    assert (result.steps, result.images) == (3, 1)
    assert is_finite(model)
    assert math.isfinite(result.loss)


def test_no_labels_train_nothing():
    images = Bands(3)
    model, result = trained("toy", source_of(images, PixelLabels()))
    assert (result.loss, result.steps, result.images) == (None, 0, 0)
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), model_of("toy").state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("kind", ["toy", "deeplab"])
def test_the_same_seed_gives_the_same_weights(kind: str):
    images = Bands(4)
    states = []
    for seed, workers in ((0, 0), (0, 3), (1, 0)):
        torch.manual_seed(100 + workers)  # what was drawn before does not count
        source = source_of(images, images.labels(5), Augmentation(), seed=seed, workers=workers)
        states.append(trained(kind, source, seed=seed)[0].state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])


def test_training_leaves_torchs_generator_and_the_mode_alone():
    images = Bands(4)
    source, model = source_of(images, images.labels(5)), model_of("deeplab").eval()
    before = torch.get_rng_state()
    train(model, source, TrainSettings(epochs=1), seed=0, round=0, device=CPU, precision=torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training


@contextmanager
def watched_rates() -> Iterator[list[list[float]]]:
    rates: list[list[float]] = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: rates.append([group["lr"] for group in optimizer.param_groups])
    )
    try:
        yield rates
    finally:
        handle.remove()


def test_multistep_falls_at_40_and_80_percent():
    factors = rate_factors(TrainSettings(epochs=50, schedule="multistep"), 3)
    assert factors == pytest.approx([1.0] * 60 + [0.1] * 60 + [0.01] * 30)


def test_poly_falls_to_nothing():
    factors = rate_factors(TrainSettings(epochs=4, schedule="poly", power=0.9), 5)
    assert factors == pytest.approx([(1 - step / 20) ** 0.9 for step in range(20)])


def test_constant_stays():
    assert list(rate_factors(TrainSettings(epochs=3, schedule="constant"), 2)) == [1.0] * 6


@pytest.mark.parametrize("schedule", ["multistep", "poly", "constant"])
def test_no_steps_have_no_rates(schedule: str):
    assert list(rate_factors(TrainSettings(epochs=3, schedule=schedule), 0)) == []


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_rates_reach_the_optimiser(optimizer: str):
    images = Bands(6)
    with watched_rates() as rates:
        trained(
            "toy",
            source_of(images, images.labels(2)),
            epochs=5,
            optimizer=optimizer,
            learning_rate=0.02,
            encoder_rate=0.1,
        )
    decoder = [0.02] * 4 + [0.002] * 4 + [0.0002] * 2
    assert [rate for _, rate in rates] == pytest.approx(decoder)
    assert [rate for rate, _ in rates] == pytest.approx([0.1 * rate for rate in decoder])


def test_training_learns_the_bands():
    images = Bands(6)
    source = source_of(images, images.labels(10), replace(PLAIN, scale=(1.0, 1.0)))
    model, result = trained("toy", source, epochs=15, learning_rate=0.02, encoder_rate=1.0)
    with torch.no_grad():
        model.eval()
        logits = model.decode(model.encode(torch.from_numpy(images.image(0)).permute(2, 0, 1)[None] / 255))
    assert result.loss < 0.3
    assert logits[0, :, 6, [1, 7, 13]].argmax(0).tolist() == [0, 1, 2]


def test_the_reported_loss_is_the_last_epochs_mean(monkeypatch: pytest.MonkeyPatch):
    images, told, losses = Bands(6), [], []

    def watched(*arguments: object) -> Tensor:
        loss = point_loss(*arguments)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr("alseg.engine.train.point_loss", watched)
    result = train(
        model_of("toy"),
        source_of(images, images.labels(3)),
        TrainSettings(epochs=2, workers=0),
        seed=0,
        round=0,
        device=CPU,
        precision=torch.float32,
        advance=lambda images, loss: told.append((images, loss)),
    )
    means = [pytest.approx((one + two) / 2, rel=1e-6) for one, two in (losses[:2], losses[2:])]
    assert told == [(4, None), (2, None), (0, means[0]), (4, None), (2, None), (0, means[1])]
    assert result.loss == means[1]


def batch_means(model: Toy, batches: list[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Plain mean over the batches of what the second norm is given: each one's mean and unbiased variance."""
    means, variances = [], []
    with torch.no_grad():
        for batch in batches:
            first = model.first(batch.images)
            mean, variance = first.mean((0, 2, 3)), first.var((0, 2, 3), unbiased=False)
            normal = (first - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
            second = model.second(torch.relu(normal)).double().numpy()
            flat = second.transpose(1, 0, 2, 3).reshape(8, -1)
            means.append(flat.mean(1))
            variances.append(flat.var(1, ddof=1))
    return np.mean(means, 0), np.mean(variances, 0)


@pytest.mark.parametrize(("most", "used"), [(200, 3), (8, 2), (5, 2), (4, 1)])
def test_settled_batch_norms_hold_the_mean_over_the_batches(most: int, used: int):
    images, model = Bands(12), model_of("toy").train()
    batches = list(source_of(images, images.labels(2)).epoch(0))
    assert len(batches) == 3
    for norm in (model.first_norm, model.second_norm):
        nn.init.constant_(norm.running_mean, 123)
        norm.momentum = 0.25
    mean, variance = batch_means(model, batches[:used])
    settle_batch_norms(model, iter(batches), CPU, torch.float32, most)
    np.testing.assert_allclose(model.second_norm.running_mean.numpy(), mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.second_norm.running_var.numpy(), variance, rtol=1e-4, atol=1e-5)
    assert (model.first_norm.running_mean == 123).all(), "the encoder's are its own"
    assert (model.first_norm.momentum, model.second_norm.momentum) == (0.25, 0.25)
    assert all(p.grad is None for p in model.parameters())


def test_a_norm_that_is_called_twice_settles_on_the_mean_of_its_calls():
    images, model = Bands(12), model_of("toy").train()
    batches = list(source_of(images, images.labels(2)).epoch(0))
    decode, norm = model.decode, model.second_norm
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))

    def twice(features: Tensor) -> Tensor:
        norm(3 + torch.rand(2, 8, 4, 4))
        return decode(features)

    model.decode = twice
    settle_batch_norms(model, iter(batches), CPU, torch.float32)
    assert len(seen) == 6
    mean = torch.stack([each.mean((0, 2, 3)) for each in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)


def test_norms_without_weights_are_settled_where_they_are_the_decoders():
    images, model = Bands(8), model_of("toy").train()
    for norm in ("first_norm", "second_norm"):
        setattr(model, norm, nn.BatchNorm2d(getattr(model, norm).num_features, affine=False))
    model.first, model.first_norm = nn.Sequential(model.first, model.first_norm), nn.Identity()
    own = list(model.first.parameters())
    others = [*model.second.parameters(), *model.classifier.parameters()]
    model.parameter_groups = lambda: {"encoder": own, "decoder": others}
    for norm in (model.first[1], model.second_norm):
        nn.init.constant_(norm.running_mean, 7)
    settle_batch_norms(model, source_of(images, images.labels(2)).epoch(0), CPU, torch.float32)
    assert (model.first[1].running_mean == 7).all() and (model.second_norm.running_mean.abs() < 5).all()


def test_frozen_norms_that_are_in_no_group_are_not_settled():
    images, model = Bands(8), model_of("toy").train()
    own = [*model.second.parameters(), *model.second_norm.parameters(), *model.classifier.parameters()]
    model.parameter_groups = lambda: {"encoder": [], "decoder": own}
    for module in (model.first, model.first_norm):
        module.requires_grad_(False)
    for norm in (model.first_norm, model.second_norm):
        nn.init.constant_(norm.running_mean, 7)
    settle_batch_norms(model, source_of(images, images.labels(2)).epoch(0), CPU, torch.float32)
    assert (model.first_norm.running_mean == 7).all() and (model.second_norm.running_mean.abs() < 5).all()


def test_determinism_within_determinism_leaves_it_as_it_was():
    """A training under it that scores after each epoch, which is deterministic, too."""
    with deterministic(True):
        with deterministic(True):
            pass
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_norms_are_settled_after_training_at_points_only():
    images = Bands(8)
    source = source_of(images, images.labels(4))
    counts = {}
    for decode in ("points", "dense"):
        model, _ = trained("deeplab", source, epochs=3, decode=decode)
        counts[decode] = int(model.second[1].num_batches_tracked)
    assert counts == {"points": 2, "dense": 6}


@pytest.mark.parametrize(("settings", "expected"), [({}, "points"), ({"decode": "dense"}, "dense")])
def test_a_training_says_where_it_decoded_which_is_at_the_points_unless_told(settings, expected):
    images = Bands(8)
    _, result = trained("deeplab", source_of(images, images.labels(11)), epochs=1, **settings)
    assert result.decode == expected


def test_a_model_without_decode_at_is_decoded_densely():
    images = Bands(8)
    _, result = trained("toy", source_of(images, images.labels(2)), epochs=1, decode="points")
    assert result.decode == "dense"
