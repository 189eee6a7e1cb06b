"""Choices that give each predicted class its share: against their definition, and as draws."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import torch
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_acquirers import noise_of

from alseg.plugins import Registry
from alseg.protocols import Selector
from alseg.ranking import places
from alseg.values import PixelLabels, PoolBatch, Selection

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def batch_of(
    predicted: np.ndarray, candidates: np.ndarray | None = None, keys: Sequence[str] | None = None, seed: int = 0
) -> PoolBatch:
    images, *size = predicted.shape
    names = tuple(keys or (f"image {i}" for i in range(images)))
    free = torch.from_numpy(np.ones(predicted.shape, bool) if candidates is None else candidates)
    prediction = SimpleNamespace(predicted=lambda: torch.from_numpy(predicted))
    shape = (size[0], size[1])
    return PoolBatch(names, shape, prediction, free, PixelLabels(), 1, noise_of(names, shape, seed, 1))


def selector(registry: Registry, name: str, **options: object) -> Selector:
    piece = registry.find("selector", name)
    return piece.build(piece.resolve(options))


def chosen(selection: Selection, i: int = 0) -> list[int]:
    return [index for index in selection.indices[i].tolist() if index >= 0]


def fair(counts: Sequence[int], n: int) -> int:
    """How many turns all classes that have enough get whole."""
    turns = 0
    while sum(min(count, turns + 1) for count in counts) <= n and turns < max(counts, default=0):
        turns += 1
    return turns


@few
@given(
    rows=st.integers(1, 3),
    length=st.integers(1, 40),
    groups=st.integers(1, 4),
    levels=st.integers(1, 50),
    seed=st.integers(0, 999),
)
def test_places_are_the_order_within_a_group(rows: int, length: int, groups: int, levels: int, seed: int):
    random = np.random.default_rng(seed)
    values, group = random.integers(0, levels, (rows, length)), random.integers(0, groups, (rows, length))
    allowed = random.random((rows, length)) < 0.7
    found = places(torch.from_numpy(values), torch.from_numpy(group), torch.from_numpy(allowed)).numpy()
    for r in range(rows):
        for g in range(groups):
            members = [i for i in range(length) if allowed[r, i] and group[r, i] == g]
            members.sort(key=lambda i: (-values[r, i], i))
            assert found[r, members].tolist() == list(range(len(members)))


@few
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 20)),
    classes=st.integers(1, 6),
    n=st.integers(1, 30),
    free=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 9999),
)
def test_each_predicted_class_has_an_equal_share(
    registry: Registry, shape: tuple[int, int, int], classes: int, n: int, free: float, seed: int
):
    random = np.random.default_rng(seed)
    predicted, candidates = random.integers(0, classes, shape), random.random(shape) < free
    batch = batch_of(predicted, candidates, seed=seed)
    selection = selector(registry, "balanced-random")(batch, torch.zeros(shape), n)
    assert selection.indices.shape == (shape[0], n)
    for i in range(shape[0]):
        picks = chosen(selection, i)
        there = Counter(predicted[i][candidates[i]].tolist())
        assert len(set(picks)) == len(picks) == min(n, sum(there.values()))
        assert candidates[i].ravel()[picks].all()
        got, turns = Counter(predicted[i].ravel()[picks].tolist()), fair(list(there.values()), n)
        for name, count in there.items():
            assert got[name] in {min(count, turns), min(count, turns + 1)}
        priority = selection.priority[i][: len(picks)].tolist()
        assert priority == sorted(priority, reverse=True)


def test_a_small_class_is_asked_as_often_as_a_large_one(registry: Registry):
    predicted = np.zeros((400, 5, 20), np.int64)
    predicted[:, 0, :4], predicted[:, 1, 3] = 1, 2  # 95, 4 and 1 of 100 pixels
    selection = selector(registry, "balanced-random")(batch_of(predicted), torch.zeros(400, 5, 20), 1)
    counts = Counter(predicted[i].ravel()[chosen(selection, i)[0]] for i in range(400))
    assert stats.chisquare([counts[c] for c in range(3)]).pvalue > 0.001
    within = [chosen(selection, i)[0] for i in range(400) if chosen(selection, i)[0] < 4]
    assert stats.chisquare([within.count(place) for place in range(4)]).pvalue > 0.001


def test_a_draw_depends_on_the_image_alone(registry: Registry):
    predicted = np.random.default_rng(0).integers(0, 4, (5, 6, 7))
    select = selector(registry, "balanced-random")
    together = select(batch_of(predicted), torch.zeros(5, 6, 7), 9).indices
    alone = [
        select(batch_of(predicted[i : i + 1], keys=[f"image {i}"]), torch.zeros(1, 6, 7), 9).indices for i in range(5)
    ]
    assert torch.equal(together, torch.cat(alone))
    assert not torch.equal(together, select(batch_of(predicted, seed=1), torch.zeros(5, 6, 7), 9).indices)


def test_a_run_with_it(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 2, "--out", tmp_path / "run"]
    outcome = cli(*words, "--selector", "balanced-random", "--first-pixels", 4, "--pixels-per-round", 4)
    assert outcome.code == 0, outcome.err
    questions = [json.loads(line) for line in (tmp_path / "run/rounds/01/questions.jsonl").read_text().splitlines()]
    assert Counter(q["image"] for q in questions) == {f"train{i:02}": 4 for i in range(6)}
