"""Precision, randomness and memory as a run sets them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alseg.compare import local
from alseg.compare.jobs import Job
from alseg.engine.device import in_smaller_batches, own_modes, seeded
from alseg.noise import stream

CPU = torch.device("cpu")


def test_what_a_piece_casts_by_itself_is_of_now():
    layer, found = nn.Linear(4, 1, bias=False), []
    with own_modes():
        for value in (1.0, 2.0):
            nn.init.constant_(layer.weight, value)
            with torch.autocast("cpu", torch.bfloat16):
                found.append(float(F.linear(torch.ones(1, 4), layer.weight).detach()))
    assert found == [4.0, 8.0]


def test_generators_start_from_a_key_inside_and_are_as_before_after():
    before = torch.get_rng_state()
    with seeded(CPU, 1, 2, "purpose", "key"):
        found = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    expected = torch.Generator().manual_seed(stream(1, 2, "purpose", "key") & (2**63 - 1))
    assert torch.equal(found, torch.rand(3, generator=expected))


@pytest.mark.parametrize(
    "words",
    [
        "GET was unable to find an engine to execute this computation",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
    ],
)
def test_a_convolution_that_there_is_no_memory_for_is_tried_with_fewer_images(words):
    said: list[str] = []

    def work(size: int) -> int:
        if size > 8:
            raise RuntimeError(words)
        return size

    assert in_smaller_batches(work, 32, "batches", said.append) == 8
    assert len(said) == 2


@pytest.mark.parametrize(
    ("devices", "at_once", "visible"),
    [
        (["auto"] * 3, 2, {"3", "5"}),
        (["cuda"] * 3, 2, {"3", "5"}),
        (["cuda:1"] * 3, 1, {"3,5"}),
        (["cuda:0", "cuda:1", "cuda:1"], 2, {"3,5"}),
    ],
)
def test_a_comparisons_runs_have_a_gpu_each_or_the_one_that_they_state(
    monkeypatch, tmp_path, devices, at_once, visible
):
    environments: list[dict[str, str]] = []

    class Worker:
        process = None

        def __init__(self, environment, logs, ended):
            environments.append(environment)
            self.ended = ended

        def begin(self, job):
            self.ended.put((self, job, None))

        def close(self):
            pass

    class Watch:
        def tick(self):
            pass

        def started(self, job):
            pass

        def finished(self, job, error):
            pass

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(local, "_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(local, "Worker", Worker)
    jobs = [Job(str(i), str(tmp_path / str(i)), {"device": device}) for i, device in enumerate(devices)]
    local.LocalExecutor()(jobs, tmp_path / "logs", Watch())
    assert len(environments) == at_once
    assert {each["CUDA_VISIBLE_DEVICES"] for each in environments} == visible
    assert {each["ALSEG_RUNS_AT_ONCE"] for each in environments} == {str(at_once)}
