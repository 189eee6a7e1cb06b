"""A device's measured ceilings, and what a piece of work asks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.__main__ import timed

SERIES = 10  # calls that are timed together


def best_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the best of five series of it."""

    def many() -> None:
        for _ in range(SERIES):
            call()

    many()
    return min(timed(many, device) for _ in range(5)) / SERIES


def copy_rate(device: torch.device) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    count = 2**30 if device.type == "cuda" else 2**25
    source, target = (torch.ones(count, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * count / best_seconds(lambda: target.copy_(source), device)


def multiplication_rate(device: torch.device) -> float:
    """FLOP/s of a product of bfloat16 matrices of random numbers."""
    side = 8192 if device.type == "cuda" else 512
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 / best_seconds(lambda: torch.mm(left, right, out=product), device)


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators read and write inside, each operator on its own.

    Views move nothing. What one operator leaves in a cache for the next is counted as moved, so that the sum is
    what operators that are not fused ask of the memory at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operator and count its tensors."""
        result = func(*args, **(kwargs or {}))
        moves = not getattr(func, "is_view", False) and not any(name in str(func) for name in ("empty", "_unsafe_view"))
        if moves:
            tensors = [part for part in tree_leaves((args, kwargs, result)) if isinstance(part, Tensor)]
            # one that is expanded holds less than its shape says
            self.bytes += sum(min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors)
        return result


def profiled(
    call: Callable[[], object], device: torch.device, shapes: bool = False
) -> tuple[torch.profiler.profile, float]:
    """torch's profiler after a call, and the call's seconds under it; shapes: those of what operators took are kept."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=shapes) as profiler:
        seconds = timed(call, device)
    return profiler, seconds


def busy_seconds(profiler: torch.profiler.profile) -> float | None:
    """For how long at least one kernel or copy ran on the GPU; None where none did."""
    events = [
        event
        for event in profiler.events() or ()
        # an annotation of the host's shows on the device too, and lasts from its first kernel to its last
        if event.device_type == DeviceType.CUDA and not getattr(event, "is_user_annotation", False)
    ]
    spans = [(event.time_range.start, event.time_range.end) for event in events if not event.name.startswith("Optim")]
    return covered(spans) / 1e6 if spans else None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """The length of the union of spans."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total
