"""PixelPick's selectors against their definitions: who is in the 5 %, and how the picks are drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from math import comb
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alseg import noise
from alseg.engine.acquire import Pool
from alseg.engine.images import DecodedImages
from alseg.engine.passes import Draw
from alseg.engine.predict import ModelPrediction
from alseg.plugins import Registry
from alseg.protocols import Selector
from alseg.values import Classes, PixelLabels, PoolBatch, Selection

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)
SELECTORS = ("topk", "uniform", "topk-then-uniform", "uniform-then-topk")
A, B = "uniform-then-topk", "topk-then-uniform"


class Recording:
    """A batch whose noise maps can be looked at afterwards."""

    def __init__(self, candidates: np.ndarray, keys: tuple[str, ...] | None = None, seed: int = 0, round: int = 1):
        images, *size = candidates.shape
        keys = keys or tuple(f"image {i}" for i in range(images))
        self.maps: list[np.ndarray] = []  # but those by which equal utilities are told apart

        def drawn(purpose: str) -> torch.Tensor:
            starts = [noise.stream(seed, round, purpose, key) for key in keys]
            return noise.uniforms(starts, size[0] * size[1]).unflatten(1, size)

        def draw(purpose: str) -> torch.Tensor:
            if purpose != "ties":
                self.maps.append(drawn(purpose).numpy().reshape(images, -1))
            return drawn(purpose)

        self.ties = drawn("ties").numpy().reshape(images, -1)
        free = torch.from_numpy(candidates)
        self.batch = PoolBatch(keys, (size[0], size[1]), None, free, PixelLabels(), round, draw)


def selector(registry: Registry, name: str, **options: float) -> Selector:
    piece = registry.find("selector", name)
    return piece.build(piece.resolve(options))


def chosen(selection: Selection, i: int = 0) -> list[int]:
    return [index for index in selection.indices[i].tolist() if index >= 0]


def utilities(seed: int, shape: tuple[int, ...], levels: int | None = None) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=shape) if levels is None else random.integers(0, levels, shape).astype(np.float64)


def best(values: np.ndarray, members: set[int], count: int, ties: np.ndarray | None = None) -> list[int]:
    """The members of highest value, ties by the lower key or index."""
    return sorted(members, key=lambda i: (-values[i], i if ties is None else ties[i]))[:count]


def share_of(candidates: int, share: str, n: int) -> int:
    exact = Fraction(share) * candidates
    return max(n, -(-exact.numerator // exact.denominator))


def expected(
    name: str, values: np.ndarray, free: set[int], n: int, share: str, keys: np.ndarray | None, ties: np.ndarray
) -> list[int]:
    if name == "topk":
        return best(values, free, n, ties)
    assert keys is not None
    if name == "uniform":
        return best(-keys, free, n)
    size = share_of(len(free), share, n)
    if name == B:
        return best(-keys, set(best(values, free, size, ties)), n)
    return best(values, set(best(-keys, free, size)), n, ties)


@pytest.mark.parametrize("name", SELECTORS)
@few
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 30)),
    n=st.integers(1, 12),
    share=st.sampled_from(["0.05", "0.1", "0.29", "0", "1"]),
    free=st.sampled_from([0.0, 0.3, 1.0]),
    levels=st.sampled_from([None, 1, 3]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_definition(
    registry: Registry,
    name: str,
    shape: tuple[int, int, int],
    n: int,
    share: str,
    free: float,
    levels: int | None,
    seed: int,
):
    candidates = np.random.default_rng(seed + 1).random(shape) < free
    values = utilities(seed, shape, levels)
    recording = Recording(candidates, seed=seed)
    options = {"share": share} if name == A else {"top": share} if name == B else {}
    selection = selector(registry, name, **options)(recording.batch, torch.from_numpy(values), n)
    assert selection.indices.shape == selection.priority.shape == (shape[0], n)
    for i in range(shape[0]):
        keys = recording.maps[0][i] if recording.maps else None
        members = set(np.flatnonzero(candidates[i]).tolist())
        wanted = expected(name, values[i].ravel(), members, n, share, keys, recording.ties[i])
        assert selection.indices[i].tolist() == wanted + [-1] * (n - len(wanted))


@pytest.mark.parametrize("name", ["topk", B, A, "diverse"])
def test_equal_utilities_are_asked_anywhere_in_an_image(registry: Registry, name: str):
    values, rows = torch.zeros(300, 20, 10), Counter()
    values[:, 12:] = -1
    recording = Recording(np.ones((300, 20, 10), bool))
    recording.batch = replace(recording.batch, prediction=SimpleNamespace(embedding=lambda: torch.rand(300, 2, 20, 10)))
    selection = selector(registry, name)(recording.batch, values, 2)
    for i in range(300):
        rows.update(pick // 10 for pick in chosen(selection, i))
    assert max(rows) < 12
    assert stats.chisquare([rows[row] for row in range(12)]).pvalue > 1e-3


@pytest.mark.parametrize("name", SELECTORS)
def test_priority_falls_and_is_utility_or_key(registry: Registry, name: str):
    candidates, values = np.ones((2, 10, 12), bool), utilities(0, (2, 10, 12))
    recording = Recording(candidates)
    selection = selector(registry, name)(recording.batch, torch.from_numpy(values), 5)
    assert (selection.priority.diff(dim=1) <= 0).all()
    told = recording.maps[0] if name in ("uniform", B) else values.reshape(2, -1)
    for i in range(2):
        source = -told[i] if name in ("uniform", B) else told[i]
        assert selection.priority[i].tolist() == source[chosen(selection, i)].tolist()


@pytest.mark.parametrize(
    ("candidates", "share", "n", "size"),
    [
        (140, "0.05", 1, 7),
        (141, "0.05", 1, 8),
        (100, "0.05", 1, 5),
        (20, "0.05", 1, 1),
        (21, "0.05", 1, 2),
        (1, "0.05", 1, 1),
        (140, "0.05", 10, 10),
        (30, "0.1", 1, 3),
        (100, "0.07", 1, 7),
        (100, "0.29", 1, 29),
        (172_800, "0.05", 10, 8640),
    ],
)
def test_the_share_is_rounded_up_exactly(registry: Registry, candidates: int, share: str, n: int, size: int):
    assert share_of(candidates, share, n) == size
    free, values = np.ones((1, 1, candidates), bool), np.arange(candidates, dtype=np.float64)[::-1].copy()
    # Asked for as many as the share has, B gives the whole share and A the whole draw.
    inside = {}
    for name, option in ((B, "top"), (A, "share")):
        one, recording = selector(registry, name, **{option: share}), Recording(free)
        seen = set(chosen(one(recording.batch, torch.from_numpy(values)[None, None], size)))
        assert len(seen) == size
        inside[name] = seen, recording.maps[0][0]
    assert inside[B][0] == set(range(size))
    assert inside[A][0] == set(np.argsort(inside[A][1], kind="stable")[:size].tolist())
    # Asked for fewer, B's picks and A's subset are those of that size and of no other.
    recording = Recording(free)
    picked = chosen(selector(registry, B, top=share)(recording.batch, torch.from_numpy(values)[None, None], n))
    assert picked == best(-recording.maps[0][0], set(range(size)), n)
    recording = Recording(free)
    picked = chosen(selector(registry, A, share=share)(recording.batch, torch.from_numpy(values)[None, None], n))
    assert picked == sorted(np.argsort(recording.maps[0][0], kind="stable")[:size].tolist())[:n]


def test_every_member_of_the_top_seven_of_140_is_drawn_and_no_other(registry: Registry):
    values = utilities(1, (140,))
    free = np.ones((400, 10, 14), bool)
    maps = torch.from_numpy(np.broadcast_to(values.reshape(10, 14), free.shape).copy())
    selection = selector(registry, B)(Recording(free).batch, maps, 1)
    assert set(selection.indices[:, 0].tolist()) == set(best(values, set(range(140)), 7))


def draws(registry: Registry, name: str, values: np.ndarray, n: int, images: int, by: str) -> list[list[int]]:
    """Picks of many images, or of one image in many rounds or seeds."""
    one, shape = selector(registry, name), (1, *values.shape)
    if by == "key":
        free = np.ones((images, *values.shape), bool)
        maps = torch.from_numpy(np.broadcast_to(values, free.shape).copy())
        selection = one(Recording(free).batch, maps, n)
        return [chosen(selection, i) for i in range(images)]
    free, maps = np.ones(shape, bool), torch.from_numpy(values)[None]
    batches = (Recording(free, **{by: i}).batch for i in range(images))
    return [chosen(one(batch, maps, n)) for batch in batches]


@pytest.mark.parametrize(("by", "images"), [("key", 3000), ("seed", 500), ("round", 500)])
def test_b_draws_uniformly_from_the_top(registry: Registry, by: str, images: int):
    values = utilities(2, (10, 20))
    picks = draws(registry, B, values, 1, images, by)
    counts = Counter(pick for (pick,) in picks)
    top = best(values.ravel(), set(range(200)), 10)
    assert set(counts) == set(top)
    assert stats.chisquare([counts[i] for i in top]).pvalue > 1e-3


def without_replacement(counts: list[int], draws_of: int, of: int) -> float:
    """p-value that `draws_of` of `of` members were drawn evenly each time, from how often each was."""
    statistic = stats.chisquare(counts).statistic * (of - 1) / (of - draws_of)
    return float(stats.chi2.sf(statistic, of - 1))


def test_b_draws_three_uniformly_from_the_top(registry: Registry):
    values = utilities(3, (10, 20))
    picks = draws(registry, B, values, 3, 2000, "key")
    top = best(values.ravel(), set(range(200)), 10)
    counts = Counter(pick for row in picks for pick in row)
    assert set(counts) == set(top)
    assert all(len(set(row)) == 3 for row in picks)
    assert without_replacement([counts[i] for i in top], 3, 10) > 1e-3
    pairs = Counter(frozenset(pair) for a, b, c in picks for pair in ((a, b), (a, c), (b, c)))
    assert len(pairs) == comb(10, 2)
    assert min(pairs.values()) > 0.6 * 2000 * 3 / comb(10, 2)


def test_a_draws_its_subset_uniformly(registry: Registry):
    values = utilities(4, (5, 12))  # 60 candidates, a share of 3: asked for 3, A shows the subset
    picks = draws(registry, A, values, 3, 3000, "key")
    counts = Counter(pick for row in picks for pick in row)
    assert without_replacement([counts[i] for i in range(60)], 3, 60) > 1e-3
    for row in picks:
        assert row == best(values.ravel(), set(row), 3)


def test_a_picks_the_highest_of_a_uniform_subset(registry: Registry):
    values = np.arange(60, dtype=np.float64).reshape(5, 12)
    tops = Counter(pick for (pick,) in draws(registry, A, values, 1, 3000, "key"))
    # the highest of 3 of 60 is number k with chance C(k, 2) / C(60, 3)
    chances = np.array([comb(k, 2) / comb(60, 3) for k in range(60)])
    bins = [range(0, 20), range(20, 30), range(30, 40), range(40, 48), range(48, 54), range(54, 60)]
    observed = [sum(tops[k] for k in each) for each in bins]
    assert stats.chisquare(observed, [3000 * chances[list(each)].sum() for each in bins]).pvalue > 1e-3


def test_uniform_ignores_utility(registry: Registry):
    picks = draws(registry, "uniform", utilities(5, (4, 5)), 2, 2000, "key")
    counts = Counter(pick for row in picks for pick in row)
    assert without_replacement([counts[i] for i in range(20)], 2, 20) > 1e-3


@pytest.mark.parametrize("name", SELECTORS)
def test_picks_do_not_depend_on_the_batch(registry: Registry, name: str):
    candidates = np.random.default_rng(0).random((3, 12, 15)) < np.array([0.9, 0.02, 0.5])[:, None, None]
    values = torch.from_numpy(utilities(6, (3, 12, 15)))
    keys = ("a", "b", "c")
    together = selector(registry, name)(Recording(candidates, keys).batch, values, 4)
    for i in range(3):
        alone = selector(registry, name)(Recording(candidates[i : i + 1], keys[i : i + 1]).batch, values[i : i + 1], 4)
        assert torch.equal(alone.indices[0], together.indices[i])
        assert torch.equal(alone.priority[0], together.priority[i])
    backwards = selector(registry, name)(Recording(candidates[::-1].copy(), keys[::-1]).batch, values.flip(0), 4)
    assert torch.equal(backwards.indices.flip(0), together.indices)


class Blank:
    """Images of one size whose masks are given."""

    def __init__(self, masks: np.ndarray) -> None:
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    def key(self, i: int) -> str:
        return f"image {i}"

    def image(self, i: int) -> np.ndarray:
        return np.zeros((*self._masks[i].shape, 3), np.uint8)

    def mask(self, i: int) -> np.ndarray:
        return self._masks[i]


def unused_model(images: list[np.ndarray], draw: Draw) -> ModelPrediction:
    return ModelPrediction(lambda: pytest.fail("no model is needed"), images[0].shape[:2])


@pytest.mark.parametrize("name", SELECTORS)
def test_picks_of_a_pool_do_not_depend_on_its_batches(registry: Registry, name: str):
    masks = np.where(np.random.default_rng(1).random((5, 8, 9)) < 0.3, 255, 0).astype(np.uint8)
    classes = Classes(("one", "two"), 255)
    values = torch.from_numpy(utilities(7, (5, 8, 9)))
    found = {}
    for size, workers in ((1, 0), (2, 0), (5, 2)):
        pool = Pool(
            DecodedImages(Blank(masks), classes, memory=10**6, workers=0),
            classes,
            PixelLabels(),
            skip_void=True,
            seed=3,
            round=2,
            device=torch.device("cpu"),
            batch_size=size,
            workers=workers,
        )
        picks: dict[int, list[int]] = {}
        for group, batch in pool.batches(unused_model):
            selection = selector(registry, name)(batch, values[group], 6)
            picks |= {i: chosen(selection, row) for row, i in enumerate(group)}
        found[size] = picks
        for i, row in picks.items():
            assert len(row) == 6
            assert (masks[i].ravel()[row] != 255).all()
    assert found[1] == found[2] == found[5]


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("open_pixels", [0, 1, 3])
def test_fewer_candidates_than_asked(registry: Registry, name: str, open_pixels: int):
    candidates = np.zeros((1, 6, 7), bool)
    candidates.reshape(1, -1)[0, [40, 3, 17][:open_pixels]] = True
    selection = selector(registry, name)(Recording(candidates).batch, torch.from_numpy(utilities(8, (1, 6, 7))), 5)
    assert set(chosen(selection)) == {40, 3, 17} & set(np.flatnonzero(candidates).tolist())
    assert selection.indices[0, open_pixels:].tolist() == [-1] * (5 - open_pixels)
