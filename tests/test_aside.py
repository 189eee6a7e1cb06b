"""Weights' gradients that are computed beside the backward pass."""

from __future__ import annotations

import contextlib
import copy
import sys
import threading
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_casts import Mixed, check_same, gradients, network
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from alseg.engine import aside
from alseg.engine.aside import Aside
from alseg.engine.casts import Casts
from alseg.engine.depthwise import Geometry, _Direct


class Counted(Aside):
    """One that knows how often it was called."""

    def __init__(self, device: torch.device = torch.device("cpu")) -> None:
        super().__init__(device)
        self.count = 0

    def later(self, work: Any, size: int) -> None:
        self.count += 1
        super().later(work, size)


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_gradients_are_those_of_autocast(monkeypatch, at_once):
    monkeypatch.setattr(aside, "AT_ONCE", at_once)
    beside = Counted()
    check_same(network(), torch.rand(2, 3, 64, 64), beside=beside)
    assert beside.count > 20
    check_same(Mixed(), torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last), rel=1e-2, beside=beside)


def test_a_layer_that_is_called_twice_adds_its_gradients():
    layer, x = nn.Conv2d(3, 3, 3, padding=1), torch.randn(2, 3, 6, 6)
    ours, theirs = (nn.Sequential(one, one) for one in (layer, copy.deepcopy(layer)))
    beside = Counted()
    _, found = gradients(ours, x, Casts(ours, torch.bfloat16), beside)
    _, wanted = gradients(theirs, x)
    assert beside.count == 2
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-2, atol=2e-2)


def test_frozen_weights_get_none_and_others_theirs():
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 2, 2)
    model[1].weight.requires_grad_(False)
    twin, beside = copy.deepcopy(model), Counted()
    _, found = gradients(model, x, Casts(model, torch.bfloat16), beside)
    _, wanted = gradients(twin, x)
    assert found["1.weight"] is None
    assert torch.equal(found["1.bias"], wanted["1.bias"])
    assert torch.equal(found["0.weight"], wanted["0.weight"])


def test_what_a_failed_pass_has_left_is_forgotten():
    beside, layer = Counted(), nn.Conv2d(2, 2, 1, bias=False)
    x = torch.ones(1, 2, 1, 1, requires_grad=True)

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            raise ValueError("broken")

    with aside.used(beside), pytest.raises(ValueError, match="broken"):
        aside.convolved(layer, Fails.apply(x), layer.weight, None, beside).sum().backward()
    assert beside.count == 1
    with aside.used(beside):
        beside.join()
    assert layer.weight.grad is None


def test_what_autograd_s_own_thread_computes_anew_is_computed_the_same_way():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.layers, x, use_reentrant=False)

    model, x = Checkpointed(), torch.rand(1, 3, 9, 9)
    twin, beside, casts = copy.deepcopy(model), Counted(), Casts(model, torch.bfloat16)
    with casts.used(), aside.used(beside):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            error = model(x).float().square().mean()
        thread = threading.Thread(target=error.backward)  # as one of autograd's does it on a GPU
        thread.start()
        thread.join()
        beside.join()
    casts.hand_over()
    assert beside.count == 2
    _, wanted = gradients(twin, x)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name])


def test_a_model_s_own_backward_pass_leaves_nothing_with_the_step_s():
    layer, x, beside = nn.Conv2d(1, 1, 1, bias=False), torch.ones(1, 1, 2, 2, requires_grad=True), Counted()
    with aside.used(beside):
        with beside.forward_pass():
            out = aside.convolved(layer, x, layer.weight, None, beside)
            by_x, by_weight = torch.autograd.grad(out.sum(), (x, layer.weight), retain_graph=True)
        assert beside.count == 0
        assert torch.equal(by_x, layer.weight.detach().expand_as(x))
        assert by_weight.item() == 4
        out.sum().backward()
        beside.join()
    assert layer.weight.grad.item() == 4
    assert beside.count == 1


def test_a_depthwise_weight_that_somebody_watches_has_its_gradient_from_autograd(monkeypatch):
    kernels = SimpleNamespace(
        convolved=lambda x, weight, geometry, size: torch.nn.functional.conv2d(
            x, weight, padding=1, groups=len(weight)
        ),
        weight_gradient=lambda x, dy, weight, geometry: torch.ones_like(weight),
    )
    monkeypatch.setattr("alseg.engine.depthwise_kernels", kernels, raising=False)
    monkeypatch.setitem(sys.modules, "alseg.engine.depthwise_kernels", kernels)
    weight, x, beside = nn.Parameter(torch.ones(2, 1, 3, 3)), torch.ones(1, 2, 4, 4), Counted()
    for count, factor in ((1, 1), (0, 5)):
        weight.grad = None
        with aside.used(beside):
            beside.count = 0
            _Direct.apply(x, weight, Geometry(1, 1, 1)).sum().backward()
            beside.join()
        assert beside.count == count
        assert torch.equal(weight.grad, factor * torch.ones_like(weight))
        weight.register_hook(lambda gradient: 5 * gradient)


def test_outside_layers_are_as_they_were():
    beside, layer, x = Counted(), nn.Conv2d(3, 3, 1), torch.ones(1, 3, 2, 2)
    assert aside.here() is None
    with aside.used(beside):
        assert aside.here() is beside
        assert not aside.fits(layer, x[0])
        assert not aside.fits(nn.Conv2d(3, 3, 1, padding_mode="reflect"), x)
        with torch.no_grad():
            assert not aside.fits(layer, x)
        assert aside.fits(layer, x)
    assert aside.here() is None


def test_without_streams_calls_come_one_after_the_other():
    called: list[int] = []

    def call(number: int) -> Tensor:
        called.append(number)
        return torch.tensor(number)

    calls = [partial(call, number) for number in range(3)]
    for beside in (None, Aside(torch.device("cpu"))):
        with aside.used(beside):
            assert [int(result) for result in aside.side_by_side(calls, [])] == [0, 1, 2]
    assert called == [0, 1, 2] * 2
    assert aside.side_by_side([], []) == []


class Stream(SimpleNamespace):
    """In the place of one of CUDA's."""

    __hash__ = object.__hash__


class Streams:
    """In CUDA's place: streams that note who waited for whom, by name, and which is the current one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.notes: list[str] = []
        self.made = 0
        self.now = self.Stream()
        for name in ("Stream", "current_stream", "stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))

    def Stream(self, device: Any = None) -> Any:  # noqa: N802
        name, self.made = f"s{self.made}", self.made + 1
        return Stream(
            name=name, device=device, wait_stream=lambda other: self.notes.append(f"{name} waits for {other.name}")
        )

    def current_stream(self, device: Any = None) -> Any:
        return self.now

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.now = self.now, stream
        try:
            yield
        finally:
            self.now = before

    def tensor(self, name: str) -> Any:
        return SimpleNamespace(record_stream=lambda stream: self.notes.append(f"{stream.name} reads {name}"))

    def call(self, name: str) -> Any:
        self.notes.append(f"{self.now.name} computes {name}")
        return self.tensor(name)


def test_each_call_has_a_stream_and_what_it_gives_is_waited_for(monkeypatch):
    streams = Streams(monkeypatch)
    beside = Aside(torch.device("cuda"))  # whose first stream, s1, is the gradients'
    for _ in range(2):  # the streams are used again
        streams.notes.clear()
        with aside.used(beside):
            aside.side_by_side([partial(streams.call, name) for name in "abc"], [streams.tensor("x")])
        assert streams.notes == [
            *("s2 waits for s0", "s2 reads x", "s2 computes b", "s3 waits for s0", "s3 reads x", "s3 computes c"),
            *("s0 computes a", "s0 waits for s2", "s0 waits for s3", "s0 reads b", "s0 reads c"),
        ]


def test_calls_within_calls_have_other_streams(monkeypatch):
    streams = Streams(monkeypatch)
    within = [partial(streams.call, name) for name in "ab"]
    with aside.used(Aside(torch.device("cuda"))):
        for place in (0, 1):
            outer: list[Any] = [partial(streams.call, "c")]
            outer.insert(place, lambda: aside.side_by_side(within, [])[0])
            aside.side_by_side(outer, [])
    computed = [note.split(" computes ") for note in streams.notes if "computes" in note]
    assert computed == [["s2", "c"], ["s3", "b"], ["s0", "a"], ["s3", "b"], ["s2", "a"], ["s0", "c"]]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_exception_leaves_the_streams_as_they_were(monkeypatch, place):
    streams, beside = Streams(monkeypatch), Aside(torch.device("cuda"))

    def fails() -> Tensor:
        raise ValueError("broken")

    calls: list[Any] = [partial(streams.call, name) for name in "abc"]
    calls[place] = fails
    now = streams.now
    with aside.used(beside), pytest.raises(ValueError, match="broken"):
        aside.side_by_side(calls, [])
    assert streams.now is now
    waited = [note for note in streams.notes if note.startswith("s0 waits")]
    assert waited == [f"s0 waits for s{number}" for number in ((2,) if place == 1 else (2, 3))], "for those begun"
    with beside.branches(2) as again:
        assert [stream.name for stream in again] == ["s2", "s3"]


def test_gradients_wait_for_all_streams_that_made_what_they_read(monkeypatch):
    streams, beside = Streams(monkeypatch), Aside(torch.device("cuda"))
    branch = streams.Stream()
    with streams.stream(branch):
        beside.later(dict, 1)
    assert not streams.notes
    beside.later(dict, aside.LARGE)
    assert sorted(streams.notes) == ["s1 waits for s0", "s1 waits for s2"]
    beside.join()
    assert streams.notes[2:] == ["s0 waits for s1"]


def test_gradients_begin_when_some_are_due_or_a_large_one_is():
    beside, begun = Aside(torch.device("cpu")), []
    sizes = [1, 1, 1, 1, 1, aside.LARGE, 1]
    for number, size in enumerate(sizes):
        beside.later(lambda number=number: begun.append(number) or {}, size)
        assert begun == list(range({3: 4, 4: 4, 5: 6, 6: 6}.get(number, 0)))
    beside.join()
    assert begun == list(range(7))


def test_a_pass_that_fails_leaves_nothing():
    """Or its maps stayed until the training ends."""
    beside = Aside(torch.device("cpu"))
    with contextlib.suppress(RuntimeError), aside.used(beside):
        beside.later(lambda: {}, 1)
        assert beside._due or beside._held
        raise RuntimeError("of the pass")
    assert not beside._due and not beside._held and not beside._found


def test_trainings_on_two_devices_do_not_meet(monkeypatch):
    place, now = threading.local(), [Aside(torch.device("cpu")) for _ in range(2)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: place.number)
    both, found = threading.Barrier(2, timeout=20), {}

    def train(number: int) -> None:
        place.number = number
        with aside.used(now[number]):
            both.wait()
            found[number] = aside.here()
            both.wait()

    threads = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict(enumerate(now))
