"""Adam's step on a GPU in one kernel a parameter group.

torch's fused step gives 65536 numbers to a block: a small network's weights make some dozens of blocks in several
kernels, which leave most of a large GPU idle. Here a program takes some thousand numbers of a tensor, wherever that is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from operator import attrgetter, is_
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from alseg.engine.attempts import works
from alseg.engine.tables import alike, chunks_of, on

Row = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # parameter, gradient, exp_avg, exp_avg_sq, step
Places = tuple[list[int], list[tuple[int, ...]]]  # addresses of all of them, strides of the gradients

VERSION = attrgetter("_version")
TABLES = 8  # made in a training at most: where addresses never stay they are not worth it


@dataclass(frozen=True)
class Part:
    """A parameter group's table on the device.

    written: the parameters and counts of steps that a step writes; nobody asks for the versions of the averages, and
    each costs time. steps: torch's counts of steps, which are on the device. above: by how much each of them is above
    its tensor's version.
    """

    group: int  # which of the optimiser's
    table: Tensor
    written: Sequence[Tensor]
    steps: Sequence[Tensor]
    above: int

    def count(self) -> int | None:
        """Steps done, without asking the device; None where the tensors differ in it."""
        versions = set(map(VERSION, self.steps))
        return versions.pop() + self.above if len(versions) == 1 else None


@dataclass(frozen=True)
class Objects:
    """An optimiser's tensors: while they are the same ones, a table that fitted them still does.

    numbered: parameters, weak references to their gradients, which are not kept by them, and the state. addresses: of
    the parameters, which change where a model is moved.
    """

    numbered: list[object]
    addresses: list[int]

    def are(self, others: Objects) -> bool:
        """Whether they are the same."""
        same = len(self.numbered) == len(others.numbered) and all(map(is_, self.numbered, others.numbered))
        return same and self.addresses == others.addresses


def objects_of(optimizer: torch.optim.Adam) -> Objects:
    """What there is now, without a look into the tensors, which takes several times as long."""
    parameters = list(chain.from_iterable(group["params"] for group in optimizer.param_groups))
    gradients = [parameter.grad for parameter in parameters]
    # Python has one such reference to an object
    weakly = [None if gradient is None else ref(gradient) for gradient in gradients]
    states = optimizer.state.values()
    numbered = [*parameters, *weakly, *states, *chain.from_iterable(map(dict.values, states))]
    return Objects(numbered, list(map(Tensor.data_ptr, parameters)))


def stepper(optimizer: torch.optim.Optimizer, device: torch.device) -> Callable[[], object]:
    """The optimiser's step, by the kernel where it fits.

    Not where runs are to be the same bit for bit: torch's rounds otherwise, and which of them does a step hangs on
    where memory is free.
    """
    if type(optimizer) is not torch.optim.Adam or torch.are_deterministic_algorithms_enabled() or not works_on(device):
        return optimizer.step
    return TableAdam(optimizer).step


@cache
def works_on(device: torch.device) -> bool:
    """Whether the kernel works on a device."""

    def attempt() -> bool:
        weight = nn.Parameter(torch.ones(7, device=device))
        weight.grad = torch.ones_like(weight)
        steps = TableAdam(torch.optim.Adam([weight], lr=0.1, fused=True))
        for _ in range(3):  # of which the last is the kernel's; each is of 0.1 where gradients stay
            steps.step()
        return bool(((weight - 0.7).abs() < 1e-5).all())

    return works("Adam's step", attempt, device)


class TableAdam:
    """Steps of torch's Adam: by the kernel where all tensors are where they were at the step before, else torch's own.

    Recorded steps leave their gradients in the same place each time, and often plain ones do. The optimiser's state
    is kept as torch keeps it, so that either may do any step.
    """

    def __init__(self, optimizer: torch.optim.Adam) -> None:
        self._optimizer = optimizer
        self._last: Places | None = None  # at the step before
        self._known: Places | None = None  # those that the tables have
        self._found: Objects | None = None  # which were last there
        self._parts: list[Part] = []  # none where the kernel does not fit
        self._tables = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters by their gradients."""
        objects = objects_of(self._optimizer) if all(map(known, self._optimizer.param_groups)) else None
        if self._found is not None and objects is not None and objects.are(self._found):
            self._last = self._known
        else:
            self._look(objects)
        if self._last is None or self._last != self._known or not self._launched():
            self._optimizer.step()

    def _look(self, objects: Objects | None) -> None:
        """Find where all tensors are, and make tables where they stayed."""
        groups = rows_of(self._optimizer)
        places = None if groups is None else places_of(groups)
        if groups and places == self._last and places != self._known and self._tables < TABLES:
            self._tables += 1
            self._known, self._parts = places, parts_of(groups)
        self._last = places
        self._found = objects if groups and places == self._known else None

    def _launched(self) -> bool:
        """Whether the kernel did the step."""
        from alseg.engine import descent_kernels

        counts = [part.count() for part in self._parts]
        if not counts or None in counts:
            return False
        for part, count in zip(self._parts, counts, strict=True):
            assert count is not None
            descent_kernels.adam(part.table, count + 1, self._optimizer.param_groups[part.group])
            torch.autograd.graph.increment_version(part.written)  # as torch's own operators do
        return True


def known(group: dict[str, Any]) -> bool:
    """Whether the kernel does what a parameter group asks for."""
    odd = any(group.get(name) for name in ("amsgrad", "maximize", "capturable", "decoupled_weight_decay"))
    return not odd and bool(group["fused"]) and not isinstance(group["lr"], Tensor)


def rows_of(optimizer: torch.optim.Adam) -> list[list[Row]] | None:
    """Each group's tensors for which there are gradients; None where the kernel does not know what is asked for."""
    groups = []
    for group in optimizer.param_groups:
        if not known(group):
            return None
        rows: list[Row] = []
        for parameter in group["params"]:
            gradient, state = parameter.grad, optimizer.state.get(parameter)
            if gradient is None:
                continue
            if not state or gradient.layout is not torch.strided:
                return None
            rows.append((parameter, gradient, state["exp_avg"], state["exp_avg_sq"], state["step"]))
        groups.append(rows)
    return groups


def places_of(groups: list[list[Row]]) -> Places:
    """Where all tensors are."""
    rows = list(chain.from_iterable(groups))
    return [tensor.data_ptr() for row in rows for tensor in row], [row[1].stride() for row in rows]


def parts_of(groups: list[list[Row]]) -> list[Part]:
    """A table for each group that has gradients; none where some tensor does not fit. The device is asked once."""
    from alseg.engine.descent_kernels import CHUNK

    if not all(fits(row) for row in chain.from_iterable(groups)):
        return []
    parts = []
    for i, rows in enumerate(groups):
        if not rows:
            continue
        steps = [row[4] for row in rows]
        above = {int(done) - step._version for done, step in zip(torch.stack(steps).tolist(), steps, strict=True)}
        if len(above) > 1:
            return []
        written = [tensor for parameter, *_, step in rows for tensor in (parameter, step)]
        parts.append(Part(i, on(steps[0].device, table_of(rows, CHUNK)), written, steps, above.pop()))
    return parts


def fits(row: Row) -> bool:
    """Whether the kernel can find its way in them."""
    return alike(row[:4]) and row[4].device == row[0].device and all(tensor.dtype == torch.float32 for tensor in row)


def table_of(rows: Sequence[Row], chunk: int) -> list[list[int]]:
    """[chunks, 6]: addresses of a chunk's numbers in the four tensors, how many, and that of the count of steps.

    The last is 0 but for a tensor's first chunk, so that each count is written once.
    """
    lines = []
    for *numbers, step in rows:
        for i, line in enumerate(chunks_of(numbers, chunk)):
            lines.append([*line, 0 if i else step.data_ptr()])
    return lines
