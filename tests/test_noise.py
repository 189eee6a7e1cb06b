"""Keyed randomness against SplitMix64 in plain integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from alseg import noise

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)
WORD = 1 << 64
signed_words = st.integers(-(1 << 63), (1 << 63) - 1)


def splitmix64(state: int, count: int) -> list[int]:
    """The generator of Steele, Lea and Flood, figure 17, one number after another."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % WORD
        mixed = state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) % WORD
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) % WORD
        numbers.append(mixed ^ (mixed >> 31))
    return numbers


def splitmix64_numpy(start: int, count: int) -> np.ndarray:
    """The same by position instead of by state, in uint64."""
    z = np.uint64(start % WORD) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def as_uniform(numbers: list[int]) -> list[float]:
    return [(number >> 11) / 2**53 for number in numbers]


def test_published_sequence():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert splitmix64(1234567, 4) == published
    assert noise.uniforms([1234567], 4)[0].tolist() == as_uniform(published)


@few
@given(start=signed_words, count=st.integers(1, 60))
def test_equals_splitmix64(start: int, count: int):
    numbers = splitmix64(start, count)
    assert splitmix64_numpy(start, count).tolist() == numbers
    drawn = noise.uniforms([start], count)
    assert drawn.dtype == torch.float64
    assert drawn.shape == (1, count)
    assert drawn[0].tolist() == as_uniform(numbers)


@pytest.mark.parametrize("start", [0, -1, 1, -(1 << 63), (1 << 63) - 1])
def test_extreme_starts(start: int):
    drawn = noise.uniforms([start], 1000)[0]
    assert drawn.tolist() == as_uniform(splitmix64_numpy(start, 1000).tolist())
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1


@few
@given(starts=st.lists(signed_words, min_size=1, max_size=6), count=st.integers(1, 40), longer=st.integers(0, 40))
def test_a_stream_does_not_depend_on_the_batch_around_it(starts: list[int], count: int, longer: int):
    together = noise.uniforms(starts, count)
    for row, start in zip(together, starts, strict=True):
        assert torch.equal(noise.uniforms([start], count + longer)[0, :count], row)
    assert torch.equal(noise.uniforms(starts[::-1], count), together.flip(0))


def test_streams_differ_in_every_part():
    parts = ([0, 1, 2], [0, 1, 2], ["selector", "acquirer"], ["", "a", "b", "ab"])
    starts = [noise.stream(*which) for which in itertools.product(*parts)]
    assert len(set(starts)) == 3 * 3 * 2 * 4
    drawn = noise.uniforms(starts, 8)
    assert len({tuple(row) for row in drawn.tolist()}) == len(starts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, 12, "p", "k"), (11, 2, "p", "k")),
        ((0, 1, "1p", "k"), (0, 11, "p", "k")),
        ((0, 0, "a", "b"), (0, 0, "ab", "")),
        ((0, 0, "a b", "c"), (0, 0, "a", "b c")),
    ],
)
def test_parts_are_kept_apart(one: tuple, other: tuple):
    assert noise.stream(*one) != noise.stream(*other)


@few
@given(
    seed=st.integers(0, 2**63 - 1),
    round=st.integers(0, 50),
    purpose=st.text("ab é", max_size=8),
    key=st.text("ab/.é\ud800\udcff🙂", max_size=8),
)
def test_a_stream_is_a_signed_word_and_always_the_same(seed: int, round: int, purpose: str, key: str):
    start = noise.stream(seed, round, purpose, key)
    assert -(1 << 63) <= start < (1 << 63)
    assert noise.stream(seed, round, purpose, key) == start


def test_a_stream_is_the_same_in_every_process():
    assert noise.stream(0, 1, "order", "train-000") == -9184930339336148873


def test_file_names_that_are_not_text_have_streams():
    assert noise.stream(0, 0, "order", "bad\udcff") != noise.stream(0, 0, "order", "bad")


@pytest.mark.parametrize("key", ["a", "b", "train-007"])
def test_a_stream_is_uniform(key: str):
    drawn = noise.uniforms([noise.stream(3, 1, "uniformity", key)], 20_000)[0].numpy()
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3
    # what follows a number does not depend on it
    cells = np.histogram2d(drawn[:-1:2], drawn[1::2], bins=10, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(cells.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("position", [0, 1, 999])
def test_one_position_is_uniform_over_keys_and_rounds(position: int):
    keys = noise.uniforms([noise.stream(0, 0, "keys", f"image {i}") for i in range(3000)], position + 1)
    assert stats.kstest(keys[:, position].numpy(), "uniform").pvalue > 1e-3
    rounds = noise.uniforms([noise.stream(0, i, "rounds", "image") for i in range(3000)], position + 1)
    assert stats.kstest(rounds[:, position].numpy(), "uniform").pvalue > 1e-3


def test_streams_are_not_correlated():
    drawn = noise.uniforms([noise.stream(0, i, "rounds", "image") for i in range(20)], 2000).numpy()
    between = np.corrcoef(drawn)[~np.eye(20, dtype=bool)]
    assert abs(between).max() < 5 / np.sqrt(2000)
