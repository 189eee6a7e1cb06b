"""PixelPick's uncertainty measures against their definitions in NumPy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from alseg import noise
from alseg.engine.device import choose_precision, deterministic
from alseg.engine.predict import ModelPrediction
from alseg.plugins import Registry
from alseg.protocols import Acquirer
from alseg.values import PixelLabels, PoolBatch

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)
UNCERTAINTY = ("least-confidence", "margin", "entropy")


def acquirer(registry: Registry, name: str) -> Acquirer:
    return registry.find("acquirer", name).build({})


def noise_of(keys: tuple[str, ...], size: tuple[int, int], seed: int, round: int) -> Callable[[str], torch.Tensor]:
    def draw(purpose: str) -> torch.Tensor:
        starts = [noise.stream(seed, round, purpose, key) for key in keys]
        return noise.uniforms(starts, size[0] * size[1]).unflatten(1, size)

    return draw


def batch_of(
    prediction: object, keys: tuple[str, ...], size: tuple[int, int], seed: int = 0, round: int = 1
) -> PoolBatch:
    candidates = torch.ones(len(keys), *size, dtype=torch.bool)
    return PoolBatch(keys, size, prediction, candidates, PixelLabels(), round, noise_of(keys, size, seed, round))


def utility(registry: Registry, name: str, logits: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    tensor = torch.from_numpy(np.asarray(logits, np.float32))
    size = size or (tensor.shape[2], tensor.shape[3])
    keys = tuple(f"image {i}" for i in range(len(tensor)))
    result = acquirer(registry, name)(batch_of(ModelPrediction(lambda: tensor, size), keys, size))
    assert result.shape == (len(keys), *size)
    assert result.is_floating_point()
    return result.double().numpy()


def upsampling_matrix(cells: int, pixels: int) -> np.ndarray:
    """[pixels, cells] bilinear weights with half-pixel centres, clamped."""
    position = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    return np.clip(1 - abs(position[:, None] - np.arange(cells)), 0, None)


def probabilities(logits: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, columns = (upsampling_matrix(*pair) for pair in zip(logits.shape[2:], size, strict=True))
    upsampled = rows @ np.asarray(logits, np.float64) @ columns.T
    return special.softmax(upsampled, axis=1)


def defined(name: str, p: np.ndarray) -> np.ndarray:
    if name == "least-confidence":
        return 1 - p.max(1)
    if name == "margin":
        ordered = np.sort(p, axis=1)
        return -(ordered[:, -1] - ordered[:, -2])
    return np.array(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1))


@pytest.mark.parametrize("name", UNCERTAINTY)
@few
@given(
    classes=st.integers(2, 7),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 5)),
    factor=st.integers(1, 4),
    spread=st.sampled_from([0.1, 2.0, 20.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_definition(
    registry: Registry,
    name: str,
    classes: int,
    cells: tuple[int, int],
    factor: int,
    spread: float,
    seed: int,
):
    logits = np.random.default_rng(seed).normal(0, spread, (2, classes, *cells)).astype(np.float32)
    size = cells[0] * factor, cells[1] * factor + 1
    expected = defined(name, probabilities(logits, size))
    np.testing.assert_allclose(utility(registry, name, logits, size), expected, atol=5e-5)


@pytest.mark.parametrize(("name", "least"), [("least-confidence", 0), ("margin", -1), ("entropy", 0)])
@pytest.mark.parametrize("logit", [200.0, 1e4, 1e30])
def test_certainty_is_the_least_utility_there_is(registry: Registry, name: str, least: float, logit: float):
    logits = np.zeros((1, 4, 2, 2))
    logits[0, 2] = logit
    p = ModelPrediction(lambda: torch.from_numpy(logits.astype(np.float32)), (2, 2)).probabilities()
    assert set(p.flatten().tolist()) == {0.0, 1.0}
    assert (utility(registry, name, logits) == least).all()


@pytest.mark.parametrize(
    ("name", "most"), [("least-confidence", 1 - 1 / 5), ("margin", 0), ("entropy", float(np.log(5)))]
)
def test_ignorance_is_the_greatest(registry: Registry, name: str, most: float):
    np.testing.assert_allclose(utility(registry, name, np.full((1, 5, 2, 3), 3.5)), most, atol=1e-6)


@pytest.mark.parametrize(("name", "value"), [("least-confidence", 0.5), ("margin", 0), ("entropy", np.log(2))])
def test_two_equal_classes_among_impossible_ones(registry: Registry, name: str, value: float):
    logits = np.full((1, 4, 1, 1), -1e4)
    logits[0, 1] = logits[0, 3] = 0
    np.testing.assert_allclose(utility(registry, name, logits), value, atol=1e-6)


@pytest.mark.parametrize("name", UNCERTAINTY)
def test_higher_is_more_uncertain(registry: Registry, name: str):
    sharpness = np.linspace(6, 0, 20)
    direction = np.array([1.0, 0.4, -0.3, -1.0])
    logits = (direction[:, None] * sharpness)[None, :, None, :]
    values = utility(registry, name, logits)[0, 0]
    assert (np.diff(values) > 0).all()


def test_the_measures_disagree_where_they_should(registry: Registry):
    # (0.5, 0.5, 0) has the smallest margin, (0.4, 0.3, 0.3) the greatest entropy and least confidence
    p = np.array([[0.4999, 0.4999, 0.0002], [0.4, 0.3, 0.3], [0.9, 0.06, 0.04]]).T
    best = {name: int(utility(registry, name, np.log(p)[None, :, None, :]).argmax()) for name in UNCERTAINTY}
    assert best == {"margin": 0, "entropy": 1, "least-confidence": 1}


def test_upsampling_comes_before_the_softmax(registry: Registry):
    logits = np.zeros((1, 2, 1, 2))
    logits[0, 0, 0] = 8, -2
    # the pixel in the middle of three sees the logit half way between 8 and -2
    middle = utility(registry, "least-confidence", logits, (1, 3))[0, 0, 1]
    assert middle == pytest.approx(special.expit(-3.0), abs=1e-6)


@pytest.mark.parametrize(("name", "value"), [("least-confidence", 0), ("margin", -1), ("entropy", 0)])
def test_one_class_alone_is_certain(registry: Registry, name: str, value: float):
    assert (utility(registry, name, np.ones((1, 1, 2, 2))) == value).all()


@pytest.mark.parametrize("name", UNCERTAINTY)
def test_images_do_not_depend_on_the_batch(registry: Registry, name: str):
    logits = np.random.default_rng(0).normal(0, 3, (3, 4, 3, 5)).astype(np.float32)
    together = utility(registry, name, logits, (12, 20))
    for i in range(3):
        np.testing.assert_allclose(utility(registry, name, logits[i : i + 1], (12, 20))[0], together[i], atol=1e-6)


@pytest.mark.parametrize("strictly", [False, True])
def test_predicted_class_and_probabilities(registry: Registry, strictly: bool):
    with deterministic(strictly):
        check_prediction()


def check_prediction() -> None:
    logits = np.random.default_rng(1).normal(0, 2, (2, 5, 4, 3)).astype(np.float32)
    prediction = ModelPrediction(lambda: torch.from_numpy(logits), (9, 11))
    p = probabilities(logits, (9, 11))
    np.testing.assert_allclose(prediction.probabilities().numpy(), p, atol=1e-5)
    assert np.array_equal(prediction.predicted().numpy(), p.argmax(1))
    first, second = prediction.top2()
    np.testing.assert_allclose(first.numpy(), np.sort(p, 1)[:, -1], atol=1e-5)
    np.testing.assert_allclose(second.numpy(), np.sort(p, 1)[:, -2], atol=1e-5)


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_two_highest_leave_the_probabilities_as_they_are(spoilt: bool):
    logits = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    if spoilt:
        logits[0, 1, 2, 2] = float("nan")
    prediction = ModelPrediction(lambda: logits, (9, 11))
    p = prediction.probabilities()
    before, writes = p.clone(), p._version
    prediction.top2()
    assert torch.equal(p.view(torch.int32), before.view(torch.int32)) and p._version == writes
    assert prediction.probabilities() is p


class Untouchable:
    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the model was asked for {name}")


def test_random_does_not_look_at_the_model(registry: Registry):
    drawn = acquirer(registry, "random")(batch_of(Untouchable(), ("a", "b"), (30, 40)))
    assert drawn.shape == (2, 30, 40)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert not torch.equal(drawn[0], drawn[1])


def test_random_is_keyed(registry: Registry):
    random = acquirer(registry, "random")
    together = random(batch_of(Untouchable(), ("a", "b", "c"), (3, 4)))
    assert torch.equal(random(batch_of(Untouchable(), ("b",), (3, 4)))[0], together[1])
    assert not torch.equal(random(batch_of(Untouchable(), ("b",), (3, 4), round=2))[0], together[1])
    assert not torch.equal(random(batch_of(Untouchable(), ("b",), (3, 4), seed=1))[0], together[1])


@pytest.mark.parametrize(("number", "wanted"), [(0, torch.bfloat16), (1, torch.float32)])
def test_the_precision_is_the_chosen_gpu_s(monkeypatch, number: int, wanted: torch.dtype):
    now: list[int] = []
    monkeypatch.setattr("alseg.engine.device.current", lambda device: contextlib.nullcontext(now.append(device.index)))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: now[-1] == 0)
    assert choose_precision("auto", torch.device("cuda", number)) == wanted
