"""Dropout passes, and the disagreement measures against their definitions in NumPy."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from alseg.engine.passes import Draw
from alseg.engine.predict import ModelPrediction, predict
from alseg.errors import AlsegError, UserMistake
from alseg.grid import resize
from alseg.plugins import Registry
from alseg.values import PixelLabels, PoolBatch

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)
COMMITTEE = ("vote-entropy", "soft-vote", "bald", "variation-ratio")
CPU = torch.device("cpu")
IMAGES = [np.random.default_rng(i).integers(0, 256, (12, 10, 3)).astype(np.uint8) for i in range(3)]


class Counted(nn.Module):
    """A model that counts its calls, with batch norms, and dropout of the given rates in encoder and decoder."""

    def __init__(self, encoder: float = 0.0, decoder: float = 0.5, spatial: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(encoder))
        dropout = nn.Dropout2d(decoder) if spatial else nn.Dropout(decoder)
        self.head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), dropout, nn.Conv2d(8, 4, 1))
        self.encoded = self.decoded = 0

    def encode(self, images: Tensor) -> Tensor:
        self.encoded += 1
        return self.body(images)

    def decode(self, features: Tensor) -> Tensor:
        self.decoded += 1
        return self.head(features)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"encoder": list(self.body.parameters()), "decoder": list(self.head.parameters())}


KEYS = ("a", "b", "c")


def look(model: Counted, draw: Draw = Draw(0, 1, KEYS)) -> ModelPrediction:
    if model.training:
        model.eval()
    return predict(model, IMAGES, None, CPU, torch.float32, draw)


def drawn(model: Counted, k: int, draw: Draw = Draw(0, 1, KEYS)) -> Tensor:
    return torch.stack(list(look(model, draw).samples(k)))


def test_samples_are_probabilities_on_the_images_grid_given_one_at_a_time():
    model = Counted()
    samples = look(model).samples(5)
    assert isinstance(samples, Iterator)
    assert (model.encoded, model.decoded) == (0, 0), "nothing is computed before it is asked for"
    first = next(samples)
    assert (model.encoded, model.decoded) == (1, 1)
    assert first.shape == (3, 4, 12, 10)
    assert first.dtype == torch.float32
    torch.testing.assert_close(first.sum(1), torch.ones(3, 12, 10))
    assert len(list(samples)) == 4
    assert (model.encoded, model.decoded) == (1, 5)


def test_members_differ_and_are_the_model_with_dropout():
    model = Counted()
    members = drawn(model, 6)
    for i in range(6):
        for j in range(i):
            assert not torch.equal(members[i], members[j])
    torch.manual_seed(1)
    model.head[2].train()
    with torch.no_grad():
        batch = torch.from_numpy(np.stack(IMAGES)).permute(0, 3, 1, 2) / 255
        by_hand = [resize(model.decode(model.encode(batch)), (12, 10)).softmax(1) for _ in range(300)]
    torch.testing.assert_close(drawn(model, 300).mean(0), torch.stack(by_hand).mean(0), atol=0.05, rtol=0)


def test_features_are_shared_with_the_plain_pass():
    model = Counted()
    prediction = look(model)
    list(prediction.samples(4))
    before = prediction.probabilities()
    assert (model.encoded, model.decoded) == (1, 5)
    assert torch.equal(before, look(Counted()).probabilities()), "the plain pass is in evaluation mode"
    list(prediction.samples(2))
    assert model.encoded == 1


def test_an_encoder_with_dropout_runs_again_for_each_member():
    model = Counted(encoder=0.3, decoder=0.0)
    prediction = look(model)
    members = list(prediction.samples(4))
    assert model.encoded == 1 + 4
    assert not torch.equal(members[0], members[1])
    plain = prediction.probabilities()
    assert model.encoded == 1 + 4
    assert torch.equal(plain, look(Counted(encoder=0.3, decoder=0.0)).probabilities())


@pytest.mark.parametrize("spatial", [False, True])
def test_nothing_but_dropout_leaves_evaluation_mode_and_all_is_put_back(spatial: bool):
    model = Counted(spatial=spatial).eval()
    model.body[1].train()  # somebody's own wish
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    seen: list[list[str]] = []
    model.head[3].register_forward_pre_hook(
        lambda *_: seen.append([type(m).__name__ for m in model.modules() if m.training])
    )
    samples = look(model).samples(3)
    for _ in samples:
        assert [module.training for module in model.modules()] == modes, "between members too"
    assert seen == [["Dropout2d" if spatial else "Dropout"]] * 3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} has moved"


def test_modes_are_put_back_after_an_error():
    model = Counted().eval()
    model.decode = lambda features: 1 / 0  # type: ignore[assignment]
    with pytest.raises(AlsegError, match="The model Counted failed in decode: ZeroDivisionError"):
        next(look(model).samples(2))
    assert not any(module.training for module in model.modules())


def test_a_seed_gives_the_same_members_whatever_was_drawn_before_or_in_between():
    model = Counted()
    members = drawn(model, 4)
    torch.manual_seed(7)
    again = []
    for member in look(model).samples(4):
        again.append(member)
        torch.rand(3)
    assert torch.equal(torch.stack(again), members)
    assert torch.equal(drawn(model, 2), members[:2]), "a member does not depend on how many there are"
    for other in (Draw(1, 1, KEYS), Draw(0, 2, KEYS), Draw(0, 1, ("d", "e", "f"))):
        for one, another in zip(drawn(model, 1, other)[0], members[0], strict=True):
            assert not torch.equal(one, another)


class Attending(Counted):
    """A dropout between two others that is called twice, on a map whose first dimension is that of windows."""

    def decode(self, features: Tensor) -> Tensor:
        halves = self.head[2](features.unflatten(2, (2, -1)).transpose(1, 2).flatten(0, 1))  # [B * 2, c, h / 2, w]
        return super().decode(halves.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3))


@pytest.mark.parametrize(
    "model", [Counted(), Counted(spatial=True), Counted(encoder=0.3), Attending()], ids=["", "2d", "encoder", "windows"]
)
def test_what_is_dropped_of_an_image_does_not_depend_on_its_batch(model: Counted):
    together = drawn(model, 3)
    assert not torch.equal(together[0, 0], together[1, 0])
    for number, key in enumerate(KEYS):
        alone = predict(model, [IMAGES[number]], None, CPU, torch.float32, Draw(0, 1, (key,))).samples(3)
        torch.testing.assert_close(torch.cat(list(alone)), together[:, number])
    same = predict(model, [IMAGES[0]] * 2, None, CPU, torch.float32, Draw(0, 1, ("a", "b")))
    one, other = next(same.samples(1))
    assert not torch.equal(one, other), "two images of a batch have draws of their own"


def test_a_dropout_that_sees_no_images_is_drawn_as_it_is():
    model = Counted()
    model.decode = lambda features: model.head(features).add(model.head[2](torch.ones(1)))  # type: ignore[assignment]
    one, other = drawn(model, 2)
    assert not torch.equal(one, other)


def test_the_generator_outside_is_left_alone():
    samples = look(Counted()).samples(2)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    next(samples)
    next(samples)
    assert torch.equal(torch.rand(4), expected)


def test_without_active_dropout_one_sentence_says_what_to_do():
    with pytest.raises(AlsegError, match=r"^The model Counted has no dropout .* choose a model with dropout.*\.$"):
        look(Counted(decoder=0.0)).samples(3)


def test_members_keep_neither_gradients_nor_each_other():
    alive = []
    for member in look(Counted()).samples(4):
        assert not member.requires_grad
        alive.append(weakref.ref(member))
        assert sum(reference() is not None for reference in alive) <= 2
        del member


def test_samples_of_bare_logits_are_refused():
    with pytest.raises(AlsegError, match="no model"):
        ModelPrediction(lambda: torch.zeros(1, 2, 2, 2), (2, 2)).samples(2)


class Members:
    """A prediction whose members are given; it checks that whoever reads them keeps none for long."""

    def __init__(self, members: np.ndarray) -> None:
        self._members = torch.from_numpy(members.astype(np.float32))

    def samples(self, k: int) -> Iterator[Tensor]:
        assert k == len(self._members)
        given: list[weakref.ref[Tensor]] = []
        for member in self._members:
            assert sum(reference() is not None for reference in given) <= 2
            fresh = member.clone()
            given.append(weakref.ref(fresh))
            yield fresh


def utility(registry: Registry, name: str, members: np.ndarray) -> np.ndarray:
    """Of members [k, B, C, H, W]."""
    size = members.shape[-2:]
    keys = tuple(f"image {i}" for i in range(members.shape[1]))
    candidates = torch.ones(len(keys), *size, dtype=torch.bool)
    batch = PoolBatch(keys, size, Members(members), candidates, PixelLabels(), 1, lambda purpose: torch.zeros(0))
    result = registry.find("acquirer", name).build({"passes": len(members)})(batch)
    assert result.shape == (len(keys), *size)
    assert result.dtype == torch.float32
    return result.double().numpy()


def defined(name: str, members: np.ndarray) -> np.ndarray:
    """[B, H, W], pixel by pixel."""
    k, batch, classes, height, width = members.shape
    result = np.empty((batch, height, width))
    for place in np.ndindex(batch, height, width):
        p = members[(slice(None), place[0], slice(None), *place[1:])].astype(np.float64)  # [k, C]
        votes = np.bincount(p.argmax(1), minlength=classes)
        mean = p.mean(0)
        result[place] = {
            "vote-entropy": stats.entropy(votes / k),
            "variation-ratio": 1 - votes.max() / k,
            "soft-vote": stats.entropy(mean / mean.sum()),
            "bald": stats.entropy(mean / mean.sum()) - np.mean([stats.entropy(row) for row in p]),
        }[name]
    return result


def softmaxes(seed: int, k: int, classes: int, spread: float) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, spread, (k, 2, classes, 3, 4))
    p = np.exp(logits - logits.max(2, keepdims=True))
    return (p / p.sum(2, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", COMMITTEE)
@few
@given(
    k=st.integers(2, 23),
    classes=st.integers(1, 6),
    spread=st.sampled_from([0.1, 2.0, 400.0]),  # the last gives probabilities of exactly 0 and 1
    seed=st.integers(0, 999),
)
def test_equals_the_definition(registry: Registry, name: str, k: int, classes: int, spread: float, seed: int):
    members = softmaxes(seed, k, classes, spread)
    found = utility(registry, name, members)
    np.testing.assert_allclose(found, defined(name, members), atol=2e-6)
    assert (found >= -1e-6).all()


@pytest.mark.parametrize(
    ("name", "agreed", "split"),
    [
        ("vote-entropy", 0, np.log(2)),
        ("soft-vote", 0, np.log(2)),
        ("bald", 0, np.log(2)),
        ("variation-ratio", 0, 0.5),
    ],
)
def test_certain_members_that_agree_and_that_split(registry: Registry, name: str, agreed: float, split: float):
    members = np.zeros((4, 1, 3, 1, 2))
    members[:, 0, 1, 0, 0] = 1
    members[:2, 0, 1, 0, 1] = 1
    members[2:, 0, 2, 0, 1] = 1
    found = utility(registry, name, members)[0, 0]
    assert found[0] == agreed
    assert found[1] == pytest.approx(split, abs=1e-7)


@pytest.mark.parametrize("k", [2, 3, 20, 47])
@pytest.mark.parametrize("spread", [0.1, 3.0, 400.0])
def test_bald_is_exactly_zero_where_members_are_identical(registry: Registry, k: int, spread: float):
    members = softmaxes(0, 1, 11, spread).repeat(k, 0)
    assert (utility(registry, "bald", members) == 0).all()
    assert (utility(registry, "variation-ratio", members) == 0).all()
    expected = defined("soft-vote", members[:1])
    np.testing.assert_allclose(utility(registry, "soft-vote", members), expected, atol=1e-6)


def test_bald_is_never_negative(registry: Registry):
    members = softmaxes(1, 1, 5, 1.0).repeat(20, 0)
    members = members + np.random.default_rng(0).normal(0, 1e-8, members.shape)
    assert (utility(registry, "bald", members) >= 0).all()


def test_one_pass_is_no_committee(registry: Registry):
    piece = registry.find("acquirer", "bald")
    assert piece.resolve({})["passes"] == 20
    with pytest.raises(UserMistake, match="passes takes a whole number from 2"):
        piece.resolve({"passes": "1"})


@pytest.mark.parametrize("name", COMMITTEE)
def test_a_run_with_a_committee_repeats_itself(cli, camvid, tmp_path, name: str):
    asked = []
    for out in ("first", "second"):
        words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--acquirer", name, "-o", "acquirer.passes=3"]
        words += ["--selector", "topk", "--first-pixels", 2, "--pixels-per-round", 3, "--rounds", 2]
        outcome = cli(*words, "--out", tmp_path / out)
        assert outcome.code == 0, outcome.err
        text = (tmp_path / out / "rounds" / "01" / "questions.jsonl").read_text()
        asked.append([json.loads(line) for line in text.splitlines()])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 6 * 3
    assert all(0 <= question["utility"] <= np.log(11) for question in asked[0])
    assert name == "vote-entropy" or any(question["utility"] > 0 for question in asked[0])


def test_a_model_without_dropout_ends_with_one_sentence(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--model", "fpn", "--acquirer", "bald"]
    outcome = cli(*words, "--rounds", 2, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert "The model 'fpn' of alseg has no dropout" in outcome.err
    assert "Traceback" not in outcome.err
