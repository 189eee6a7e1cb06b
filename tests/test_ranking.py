"""The highest of a set against a plain sort."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alseg.ranking import highest, pick, places

few = settings(max_examples=60, deadline=None, database=None, derandomize=True)
INFINITY = float("inf")
TIED_FLOATS = [-INFINITY, -2.5, -0.0, 0.0, 1.0, 7.25, INFINITY]
TIED_INTS = [-(2**63), -3, 0, 1, 2**63 - 1]


def ranked(values: list, allowed: list[bool]) -> list[int]:
    """Allowed places, highest first, ties by the lower place."""
    return sorted((i for i, free in enumerate(allowed) if free), key=lambda i: (-values[i], i))


@st.composite
def tables(draw, values: st.SearchStrategy):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    row = st.lists(values, min_size=columns, max_size=columns)
    free = st.lists(st.booleans(), min_size=columns, max_size=columns)
    return (
        draw(st.lists(row, min_size=rows, max_size=rows)),
        draw(st.lists(free, min_size=rows, max_size=rows)),
        draw(st.lists(st.integers(0, columns + 2), min_size=rows, max_size=rows)),
    )


def check_highest(values: torch.Tensor, rows: list[list], allowed: list[list[bool]], counts: list[int]) -> None:
    free = torch.tensor(allowed)
    for count in (torch.tensor(counts), counts[0]):
        chosen = highest(values, free, count)
        assert chosen.dtype == torch.bool
        each = counts if isinstance(count, torch.Tensor) else [count] * len(rows)
        expected = [set(ranked(*row)[:n]) for *row, n in zip(rows, allowed, each, strict=True)]
        assert [set(row.nonzero()[:, 0].tolist()) for row in chosen] == expected


@few
@given(table=tables(st.sampled_from(TIED_FLOATS)), double=st.booleans())
def test_highest_of_tied_floats(table, double: bool):
    values, allowed, counts = table
    kind = torch.float64 if double else torch.float32
    check_highest(torch.tensor(values, dtype=kind), values, allowed, counts)


@few
@given(table=tables(st.sampled_from(TIED_INTS)))
def test_highest_of_tied_ints(table):
    values, allowed, counts = table
    check_highest(torch.tensor(values), values, allowed, counts)


@few
@given(table=tables(st.floats(-(2.0**99), 2.0**99, width=32)))
def test_highest_of_any_floats(table):
    values, allowed, counts = table
    check_highest(torch.tensor(values), values, allowed, counts)


@few
@given(table=tables(st.sampled_from(TIED_FLOATS)), seed=st.integers(0, 999))
def test_equal_values_are_told_apart_by_keys_of_their_own(table, seed: int):
    values, allowed, counts = table
    keys = np.random.default_rng(seed).permuted(np.tile(np.arange(len(values[0])), (len(values), 1)), axis=1)
    wanted = [
        sorted((i for i, free in enumerate(allowed[r]) if free), key=lambda i: (-values[r][i], keys[r][i]))
        for r in range(len(values))
    ]

    def ties() -> torch.Tensor:
        return torch.from_numpy(keys)

    numbers, free = torch.tensor(values), torch.tensor(allowed)
    chosen = highest(numbers, free, torch.tensor(counts), ties)
    n = max(counts)
    picked = pick(numbers[:, None], free[:, None], n, ties).indices
    groups = torch.zeros_like(free, dtype=torch.int64)
    ranks = places(numbers, groups, free, ties)
    for r, order in enumerate(wanted):
        assert set(chosen[r].nonzero()[:, 0].tolist()) == set(order[: counts[r]])
        assert picked[r].tolist() == order[:n] + [-1] * (n - len(order[:n]))
        assert [order.index(i) for i in order] == ranks[r, order].tolist()


def test_keys_are_not_computed_where_no_values_are_equal():
    values, free = torch.tensor([[3.0, 1.0, 2.0]]), torch.ones(1, 3, dtype=torch.bool)
    for found in (highest(values, free, 2, lambda: 1 / 0), pick(values[None], free[None], 2, lambda: 1 / 0)):
        assert found is not None


def test_infinitely_low_is_below_the_lowest_number():
    lowest = torch.finfo(torch.float32).min
    chosen = highest(torch.tensor([[-INFINITY, lowest]]), torch.ones(1, 2, dtype=torch.bool), 1)
    assert chosen.tolist() == [[False, True]]


def test_highest_of_no_images():
    assert highest(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool), 3).shape == (0, 5)


def check_pick(values: torch.Tensor, allowed: np.ndarray, n: int) -> None:
    selection = pick(values, torch.from_numpy(allowed), n)
    assert selection.indices.shape == selection.priority.shape == (len(values), n)
    assert selection.indices.dtype == torch.int64
    for i, image in enumerate(values):
        flat = image.flatten().tolist()
        best = ranked(flat, allowed[i].ravel().tolist())[:n]
        padding = [-1] * (n - len(best))
        assert selection.indices[i].tolist() == best + padding
        assert selection.priority[i].tolist() == [flat[place] for place in best] + [-INFINITY for _ in padding]


@few
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
    n=st.integers(1, 8),
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.2, 0.7, 1.0]),
)
def test_pick_orders_and_pads(shape: tuple[int, int, int], n: int, seed: int, share: float):
    random = np.random.default_rng(seed)
    values = torch.from_numpy(random.choice(TIED_FLOATS, shape))
    check_pick(values, random.random(shape) < share, n)
    check_pick(values.float(), random.random(shape) < share, n)


def test_pick_of_ints():
    selection = pick(torch.tensor([[[3, 9, 3], [1, 9, 2]]]), torch.ones(1, 2, 3, dtype=torch.bool), 3)
    assert selection.indices.tolist() == [[1, 4, 0]]


def test_pick_flattens_row_by_row():
    values = torch.zeros(1, 3, 5)
    values[0, 2, 1], values[0, 1, 4] = 2, 1
    selection = pick(values, torch.ones(1, 3, 5, dtype=torch.bool), 2)
    assert selection.indices.tolist() == [[2 * 5 + 1, 1 * 5 + 4]]


def test_an_infinitely_low_candidate_is_picked_before_padding():
    allowed = torch.tensor([[[True, False, True]]])
    selection = pick(torch.full((1, 1, 3), -INFINITY), allowed, 3)
    assert selection.indices.tolist() == [[0, 2, -1]]


def test_picks_of_an_image_do_not_depend_on_the_others():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 5, 6)))
    allowed = torch.from_numpy(
        np.random.default_rng(1).random((4, 5, 6)) < np.array([0.05, 0.3, 0.9, 1])[:, None, None]
    )
    together = pick(values, allowed, 4)
    for i in range(4):
        alone = pick(values[i : i + 1], allowed[i : i + 1], 4)
        assert torch.equal(alone.indices[0], together.indices[i])
