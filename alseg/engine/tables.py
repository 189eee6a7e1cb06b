"""Tables of addresses, by which one kernel finds the numbers of many tensors: a row for each chunk of a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

ALIGNED = 16  # bytes: where a whole vector may be loaded


def alike(tensors: Sequence[Tensor]) -> bool:
    """Whether their numbers lie on one device in one and the same order, without gaps, where vectors can be loaded."""
    orders = {order_of(tensor) for tensor in tensors}
    whole = all(tensor.numel() and tensor.data_ptr() % ALIGNED == 0 for tensor in tensors)
    return whole and len(orders) == 1 and None not in orders and len({tensor.device for tensor in tensors}) == 1


def order_of(tensor: Tensor) -> tuple[tuple[int, int], ...] | None:
    """Length and stride of each dimension that has any; None where there are gaps or a number is meant twice."""
    order = tuple((n, stride) for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if n != 1)
    expected = 1
    for n, stride in sorted(order, key=lambda dimension: dimension[1]):
        if stride != expected:
            return None
        expected *= n
    return order


def chunks_of(tensors: Sequence[Tensor], chunk: int) -> Iterator[list[int]]:
    """Where each `chunk` numbers of tensors that are alike start in each of them, and how many they are."""
    length, places = tensors[0].numel(), [(tensor.data_ptr(), tensor.element_size()) for tensor in tensors]
    for start in range(0, length, chunk):
        yield [address + start * size for address, size in places] + [min(chunk, length - start)]


def on(device: torch.device, rows: Sequence[Sequence[int]]) -> Tensor:
    """The rows as int64 on the device, without waiting for what that has still to do."""
    table = torch.tensor(rows, dtype=torch.int64)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table
