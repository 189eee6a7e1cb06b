"""The model's embedding, and picks that differ in it, against k-means++ in NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_acquirers import noise_of, upsampling_matrix
from test_balanced import chosen, selector
from test_committee import CPU, IMAGES, Counted
from torch import Tensor

from alseg.engine.predict import ModelPrediction, predict
from alseg.errors import AlsegError, UserMistake
from alseg.plugins import Registry
from alseg.segment import Segmenter
from alseg.values import PixelLabels, PoolBatch
from alseg_pixelpick import diverse
from alseg_pixelpick.deeplab import DeepLabV3Plus
from alseg_pixelpick.encoders import Encoder, last_four
from alseg_pixelpick.fpn import FPN

few = settings(max_examples=20, deadline=None, database=None, derandomize=True)


def models() -> dict[str, Callable[[], torch.nn.Module]]:
    return {
        "deeplab": lambda: DeepLabV3Plus(Encoder("test_resnet.r160_in1k", "none", 16), 3, 8),
        "fpn": lambda: FPN(Encoder("test_resnet.r160_in1k", "none", 8, last_four), 3, 8),
    }


class Embedding(Counted):
    """Its embedding is what its head sees."""

    def embedding(self, features: Tensor) -> Tensor:
        return features


@pytest.mark.parametrize("kind", ["deeplab", "fpn"])
@torch.no_grad()
def test_the_embedding_is_what_the_classifier_sees(kind: str):
    torch.manual_seed(0)
    model = models()[kind]().eval()
    seen = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = model.encode(torch.rand(2, 3, 64, 96))
    model.decode(features)
    torch.testing.assert_close(model.embedding(features), seen[0])
    quick = models()[kind]().eval()
    quick.load_state_dict(model.state_dict())
    quick = quick.for_inference(torch.float32)
    images = torch.rand(1, 3, 64, 64)
    found, wanted = quick.embedding(quick.encode(images)), model.embedding(model.encode(images))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_it_is_computed_only_when_asked_for():
    model = Embedding().eval()
    prediction = predict(model, IMAGES, None, CPU, torch.float32)
    prediction.probabilities()
    assert (model.encoded, model.decoded) == (1, 1)
    embedding = prediction.embedding()
    assert (model.encoded, model.decoded) == (2, 1)
    assert embedding.shape == (3, 8, 6, 5)
    assert embedding.dtype == torch.float32
    assert not embedding.requires_grad
    list(prediction.samples(2))
    assert torch.equal(prediction.embedding(), embedding)
    assert model.encoded == 3, "features that are there are taken"
    model.encoded, prediction = 0, predict(model, IMAGES, None, CPU, torch.float32)
    for _ in range(2):
        prediction.embedding()
    prediction.probabilities()
    assert model.encoded == 1, "who asks for an embedding asks for more than the logits"


def test_what_has_no_embedding_says_so():
    with pytest.raises(UserMistake, match="The model Counted has no embedding"):
        predict(Counted().eval(), IMAGES, None, CPU, torch.float32).embedding()
    with pytest.raises(AlsegError, match="no model"):
        ModelPrediction(lambda: torch.zeros(1, 2, 2, 2), (2, 2)).embedding()


def batch_of(maps: np.ndarray, candidates: np.ndarray, seed: int = 0) -> PoolBatch:
    keys, size = tuple(f"image {i}" for i in range(len(maps))), candidates.shape[1:]
    prediction = SimpleNamespace(embedding=lambda: torch.from_numpy(maps.astype(np.float32)))
    draw = noise_of(keys, size, seed, 1)
    return PoolBatch(keys, size, prediction, torch.from_numpy(candidates), PixelLabels(), 1, draw)


def by_definition(batch: PoolBatch, maps: np.ndarray, best: np.ndarray, i: int, n: int) -> list[int]:
    rows, columns = (upsampling_matrix(*pair) for pair in zip(maps.shape[2:], batch.size, strict=True))
    points = (rows @ maps[i] @ columns.T).reshape(maps.shape[1], -1).T  # [H * W, D]
    picks: list[int] = []
    for turn in range(min(n, len(best))):
        times = -np.log1p(-batch.noise(f"diverse {turn}")[i].flatten().numpy()[best])
        if picks:
            gaps = ((points[best][:, None] - points[picks]) ** 2).sum(-1).min(1)
            times = times / np.maximum(gaps, 1e-300)
        times[np.isin(best, picks)] = np.inf
        picks.append(int(best[times.argmin()]))
    return picks


@few
@given(
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    n=st.integers(1, 9),
    top=st.sampled_from([0.0, 0.2, 1.0]),
    free=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_it_is_k_means_plus_plus_over_the_most_useful(
    registry: Registry, size: tuple[int, int], n: int, top: float, free: float, seed: int
):
    random = np.random.default_rng(seed)
    maps, candidates = random.normal(size=(2, 5, 3, 4)), random.random((2, *size)) < free
    utility, batch = random.permutation(2 * size[0] * size[1]).reshape(2, *size) * 1.0, batch_of(maps, candidates, seed)
    selection = selector(registry, "diverse", top=top)(batch, torch.from_numpy(utility), n)
    for i in range(2):
        members = np.flatnonzero(candidates[i])
        count = max(n, int(np.ceil(round(top * len(members), 9))))
        best = np.sort(members[np.argsort(-utility[i].ravel()[members])][:count])
        picks = chosen(selection, i)
        assert picks == by_definition(batch, maps, best, i, n)
        assert selection.priority[i].tolist()[: len(picks)] == utility[i].ravel()[picks].tolist()


def test_what_looks_alike_is_asked_once(registry: Registry):
    maps = np.zeros((50, 2, 1, 20))
    maps[:, 0, :, 14:18], maps[:, 1, :, 18:] = 9, 9  # 14, 4 and 2 columns, each alike
    batch = batch_of(maps, np.ones((50, 1, 20), bool))
    select = selector(registry, "diverse", top=1.0)
    kinds = np.digitize(np.arange(20), [14, 18])
    three = select(batch, torch.zeros(50, 1, 20), 3)
    assert all({int(kinds[k]) for k in chosen(three, i)} == {0, 1, 2} for i in range(50))
    first = Counter(int(kinds[chosen(three, i)[0]]) for i in range(50))
    assert stats.chisquare([first[k] for k in range(3)], [35, 10, 5]).pvalue > 0.001
    everything = select(batch, torch.zeros(50, 1, 20), 20)
    assert all(sorted(chosen(everything, i)) == list(range(20)) for i in range(50))


def test_chunks_change_nothing(registry: Registry, monkeypatch):
    maps, free = np.random.default_rng(0).normal(size=(2, 4, 5, 5)), np.ones((2, 9, 9), bool)
    whole = selector(registry, "diverse", top=1)(batch_of(maps, free), torch.zeros(2, 9, 9), 6)
    monkeypatch.setattr(diverse, "CHUNK", 7)
    assert torch.equal(
        whole.indices, selector(registry, "diverse", top=1)(batch_of(maps, free), torch.zeros(2, 9, 9), 6).indices
    )


PLAIN = """\
from alseg import hookimpl

def plain(classes):
    import torch
    from torch import nn
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, classes, 3, padding=1)
        def encode(self, images):
            return images
        def decode(self, features):
            return self.layer(features).float()
        def parameter_groups(self):
            return {"encoder": [], "decoder": list(self.layer.parameters())}
    return Plain()

def compares():
    return lambda batch: batch.prediction.embedding().square().sum(1).mean((1, 2)).view(-1, 1, 1) + batch.noise("x")

@hookimpl
def register_models(register):
    register("plain", plain)

@hookimpl
def register_acquirers(register):
    register("compares", compares)
"""


def test_runs(cli, camvid, tmp_path, refused):
    file = tmp_path / "plain.py"
    file.write_text(PLAIN)
    words = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 2]
    words += ["--selector", "diverse", "--first-pixels", 3, "--pixels-per-round", 3]
    bare = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, "--device", "cpu", "--size", "64x64"]
    refused([*bare, "--model", "plain", "--selector", "diverse"], "The model 'plain' of ", "has no embedding")
    run = tmp_path / "run"
    assert cli(*words, "--acquirer", "compares", "--out", run).code == 0
    assert len((run / "rounds/01/questions.jsonl").read_text().splitlines()) == 6 * 3
    from alseg.plugins import load_plugins

    segmenter, image = Segmenter(run, registry=load_plugins([file])), np.zeros((64, 64, 3), np.uint8)
    assert segmenter.segment(image, utility=True).utility is not None
    segmenter.tile = 32
    with pytest.raises(UserMistake, match="all of an image at once"):
        segmenter.segment(image, utility=True)
