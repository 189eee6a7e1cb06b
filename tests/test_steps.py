"""Recorded training steps do what plain ones do."""

from __future__ import annotations

import contextlib
import copy
import types
import weakref

import pytest
import torch
from torch import nn

from alseg.engine.batches import PADDING, Batch
from alseg.engine.steps import SIZES, WARM_UP, CUDAGraph, Recorded, padded
from alseg.engine.train import point_loss


class Toy(nn.Module):
    """A model without dropout, so that padding changes no draw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def encode(self, images):
        return self.layer(images)

    def decode(self, features):
        return self.norm(features)


class Replayed:
    """Does what a CUDA graph does, on a CPU: writes a recording's results where they were the first time."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.recorded, self.replayed = model, 0, 0

    def warm_up(self, work, last):
        return work()

    def record(self, work):
        before = copy.deepcopy(self.model.state_dict())
        result = work()
        gradients = [parameter.grad for parameter in self.model.parameters()]
        self.model.load_state_dict(before)  # recording computes nothing
        self.recorded += 1

        def replay() -> None:
            result.copy_(work())
            for held, parameter in zip(gradients, self.model.parameters(), strict=True):
                held.copy_(parameter.grad)
            self.replayed += 1

        return result, replay


def batches(counts: list[int]) -> list[Batch]:
    """Of four images, but for the third, which has two; so many points in each."""
    torch.manual_seed(1)
    made = []
    for i, count in enumerate(counts):
        size = 2 if i == 2 or i == 7 else 4
        images, points = torch.rand(size, 3, 8, 8), torch.rand(size, count, 2)
        made.append(Batch(images, points, torch.randint(0, 4, (size, count))))
    return made


def steps(model: nn.Module, gradients, series: list[Batch]) -> list[float]:
    descent, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
    for batch in series:
        losses.append(float(gradients(batch)))
        descent.step()
    return losses


def plain_gradients(model: nn.Module):
    def gradients(batch: Batch) -> torch.Tensor:
        error = point_loss(model, batch, at_points=False)
        model.zero_grad(set_to_none=True)
        error.backward()
        return error.detach()

    return gradients


def test_recorded_steps_train_as_plain_ones():
    series = batches([3, 5, 5, 2, 1, 5, 4, 3, 5, 6, 2])
    plain, recorded = Toy(), Toy()
    wanted = steps(plain, plain_gradients(plain), series)
    recorder = Replayed(recorded)
    found = steps(recorded, Recorded(plain_gradients(recorded), recorded.parameters(), 5, recorder), series)
    assert recorder.recorded == 1
    # of eleven batches two are small and one has too many points
    assert recorder.replayed == 11 - 3 - WARM_UP
    assert found == pytest.approx(wanted, abs=1e-6)
    for ours, theirs in zip(recorded.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_an_epoch_s_last_batches_are_recorded_as_well():
    torch.manual_seed(1)
    sizes = [4, 4, 2] * 5 + [3, 3]
    series = [Batch(torch.rand(n, 3, 8, 8), torch.rand(n, 5, 2), torch.randint(0, 4, (n, 5))) for n in sizes]
    plain, recorded = Toy(), Toy()
    wanted = steps(plain, plain_gradients(plain), series)
    recorder = Replayed(recorded)
    found = steps(recorded, Recorded(plain_gradients(recorded), recorded.parameters(), 5, recorder), series)
    assert recorder.recorded == SIZES == 2
    assert recorder.replayed == len(sizes) - SIZES * WARM_UP - 2
    assert found == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("where", ["rehearsal", "recording"])
def test_what_cannot_be_recorded_is_done_plainly_and_said_once(where):
    class Refusing(Replayed):
        def warm_up(self, work, last):
            if last and where == "rehearsal":
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            return work()

        def record(self, work):
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    series, said = batches([5] * 7), []
    plain, recorded = Toy(), Toy()
    wanted = steps(plain, plain_gradients(plain), series)
    recorder = Refusing(recorded)
    taken: list[Batch] = []

    def others():
        other = plain_gradients(recorded)
        return lambda batch: taken.append(batch) or other(batch)

    gradients = Recorded(plain_gradients(recorded), recorded.parameters(), 5, recorder, said.append, others)
    assert steps(recorded, gradients, series) == pytest.approx(wanted, abs=1e-6)
    assert len(taken) == 6 - WARM_UP + (where == "rehearsal"), "one of the seven is of another size"
    assert len(said) == 1 and said[0].endswith("stream is capturing")


def test_a_recording_that_breaks_off_takes_the_earlier_ones_along():
    """Their generator's state may count as in a recording ever after, and a replay would fail."""

    class Second(Replayed):
        def record(self, work):
            if self.recorded:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().record(work)

    torch.manual_seed(1)
    series = [
        Batch(torch.rand(n, 3, 8, 8), torch.rand(n, 5, 2), torch.randint(0, 4, (n, 5))) for n in [4, 4, 2] * 4 + [4] * 3
    ]
    plain, recorded, said = Toy(), Toy(), []
    wanted = steps(plain, plain_gradients(plain), series)
    recorder = Second(recorded)
    gradients = Recorded(plain_gradients(recorded), recorded.parameters(), 5, recorder, said.append)
    assert steps(recorded, gradients, series) == pytest.approx(wanted, abs=1e-6)
    assert recorder.replayed == 8 - WARM_UP, "of the eight large batches before the fourth small one"
    assert len(said) == 1


def test_a_failed_recording_holds_no_memory_while_the_plain_step_is_taken():
    """Where memory was short, a plain step may still fit."""
    held: list[weakref.ref[torch.Tensor]] = []

    class Full(Replayed):
        def record(self, work):
            activations = torch.zeros(1000)
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory")

    model, seen = Toy(), []
    plain = plain_gradients(model)
    others = lambda: lambda batch: seen.append(held[0]()) or plain(batch)  # noqa: E731
    steps(model, Recorded(plain, model.parameters(), 5, Full(model), others=others), batches([5] * 6))
    assert seen[0] is None and len(held) == 1


@pytest.mark.parametrize("torch_is", ["before 2.13", "2.13", "2.14"])
def test_a_failed_recording_s_memory_is_released(monkeypatch, torch_is):
    calls: list[tuple[object, ...]] = []

    def end(*given: object) -> None:
        if torch_is == "2.13":
            raise RuntimeError("not currently recording to mempool_id")
        calls.append(("end", *given))

    class Graph:
        pass

    if torch_is == "2.14":
        Graph.capture_end_pre = None
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", lambda *given: calls.append(("release", *given)), raising=False)
    recorder = CUDAGraph.__new__(CUDAGraph)
    recorder._pool = (0, 1)
    recorder._end_allocating(3)
    release = [("release", 3, (0, 1))]
    assert calls == {"before 2.13": [("end", 3, (0, 1)), *release], "2.13": release, "2.14": []}[torch_is]


@pytest.mark.parametrize("ended", [False, True])
def test_after_a_failed_recording_all_is_as_before_and_its_memory_not_used_again(monkeypatch, ended):
    """Where the recording has ended, torch releases its memory itself."""
    done: list[object] = []

    class Graph:
        def pool(self):
            if not ended:
                raise RuntimeError("called before capture_end")

    class Generator:
        clone_state = staticmethod(lambda: "state")
        graphsafe_set_state = done.append

    handles, stream = iter(((0, 1), (0, 2))), types.SimpleNamespace(device_index=0)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: next(handles))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "set_stream", done.append)
    monkeypatch.setattr(torch.cuda, "default_generators", [Generator])
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, **more: contextlib.nullcontext())
    monkeypatch.setattr(CUDAGraph, "_end_allocating", lambda self, device: done.append(device))
    recorder = CUDAGraph()
    with pytest.raises(ZeroDivisionError):
        recorder.record(lambda: 1 / 0)
    assert done == [stream, "state", *([] if ended else [0])]
    assert recorder._pool == (0, 2)


def test_an_error_of_an_early_step_is_raised():
    class Broken(Replayed):
        def warm_up(self, work, last):
            raise RuntimeError("out of memory")

    model, (batch,) = Toy(), batches([5])
    with pytest.raises(RuntimeError, match="out of memory"):
        Recorded(plain_gradients(model), model.parameters(), 5, Broken(model))(batch)


def test_padding_adds_points_of_no_class():
    (batch,) = batches([3])
    wide = padded(batch, 5)
    assert wide.points is not None and wide.points.shape == (4, 5, 2)
    assert (wide.classes[:, 3:] == PADDING).all() and torch.equal(wide.classes[:, :3], batch.classes)
    assert padded(batch, 2) is batch
    dense = Batch(batch.images, None, torch.zeros(4, 8, 8, dtype=torch.int64))
    assert padded(dense, 9) is dense
