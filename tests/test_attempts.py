"""Whether Triton's kernels work on a device."""

from __future__ import annotations

import warnings

import pytest
import torch

from alseg.engine.attempts import works

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def triton_is_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


def test_an_attempt_that_fails_once_is_made_again():
    tries = []

    def attempt() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("in the way")

    with warnings.catch_warnings(action="error"):
        assert works("sums", attempt, CUDA)
    assert len(tries) == 2


def test_a_warning_says_why_they_do_not_work():
    def attempt() -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    with pytest.warns(UserWarning, match=r"kernels of sums do not work here, torch's are slower: .*C compiler\.$"):
        assert not works("sums", attempt, CUDA)
    with pytest.warns(UserWarning, match="other numbers"):
        assert not works("sums", lambda: False, CUDA)


def test_nothing_is_tried_without_a_gpu_or_triton(monkeypatch):
    def attempt() -> None:
        raise AssertionError

    assert not works("sums", attempt, torch.device("cpu"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not works("sums", attempt, CUDA)
