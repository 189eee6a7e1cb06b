"""The highest of a set; uniform draws are the highest of keyed noise.

`ties` gives a key for each entry, as `partial(batch.noise, "ties")` does; of equal values the one of lower key comes
first, and without `ties` the one of lower index. Keys are asked for only where values are equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alseg.values import Selection

if TYPE_CHECKING:  # plugins import `pick` where they are loaded, which every command waits for
    from collections.abc import Callable

    import torch
    from torch import Tensor

    Ties = Callable[[], Tensor] | None


def highest(values: Tensor, allowed: Tensor, count: Tensor | int, ties: Ties = None) -> Tensor:
    """Which `count` of the allowed entries of each row are highest.

    values [B, N], allowed bool [B, N], count int or int64 [B], ties -> [B, N] or [B, H, W] of as many entries
    -> bool [B, N], all of the allowed where there are fewer.
    """
    import torch

    available = allowed.sum(1)
    wanted = torch.as_tensor(count, device=values.device).expand(len(values)).minimum(available)
    most = int(wanted.max()) if len(values) else 0
    if most == 0:
        return torch.zeros_like(allowed)
    # What is not allowed gets the lowest value; `allowed` keeps it out of the ties below.
    ranked = torch.where(allowed, values, lowest(values.dtype)).topk(most, 1).values
    threshold = ranked.gather(1, (wanted - 1).clamp(min=0).unsqueeze(1))  # [B, 1]
    above = allowed & (values > threshold)
    tied = allowed & (values == threshold)
    spare = wanted - above.sum(1)
    if ties is not None and bool((tied.sum(1) > spare).any()):
        return above | highest(-ties().flatten(1), tied, spare)
    return above | (tied & (tied.cumsum(1) <= spare[:, None]))


def lowest(kind: torch.dtype) -> float:
    """The least number of a type."""
    import torch

    return -torch.inf if kind.is_floating_point else torch.iinfo(kind).min


def pick(values: Tensor, allowed: Tensor, n: int, ties: Ties = None) -> Selection:
    """The n highest of each image as a selection, highest first; their values are the priority.

    values [B, H, W], allowed bool [B, H, W], ties -> [B, H, W].
    """
    import torch

    flat, open_ = values.flatten(1), allowed.flatten(1)
    chosen = highest(flat, open_, n, ties)
    batch = len(flat)
    rows, columns = chosen.nonzero(as_tuple=True)  # in order of index, so the stable sort breaks ties by it
    counts = chosen.sum(1)
    slots = torch.arange(len(rows), device=flat.device) - (counts.cumsum(0) - counts)[rows]
    indices = torch.full((batch, n), -1, dtype=torch.int64, device=flat.device)
    priority = torch.full((batch, n), lowest(flat.dtype), dtype=flat.dtype, device=flat.device)
    indices[rows, slots] = columns
    priority[rows, slots] = flat[rows, columns]
    if ties is not None and _has_equals(priority):
        by_key = ties().flatten(1).gather(1, indices.clamp(min=0)).argsort(dim=1, stable=True)
        indices, priority = indices.gather(1, by_key), priority.gather(1, by_key)
    order = priority.argsort(dim=1, descending=True, stable=True)
    # a chosen entry may itself be the lowest: padding stays last
    order = order.gather(1, (indices.gather(1, order) < 0).to(torch.int8).argsort(dim=1, stable=True))
    return Selection(indices.gather(1, order), priority.gather(1, order))


def _has_equals(values: Tensor) -> bool:
    """Whether a row of values [B, n] holds one twice."""
    ordered = values.sort(1).values
    return bool((ordered[:, 1:] == ordered[:, :-1]).any())


def places(values: Tensor, groups: Tensor, allowed: Tensor, ties: Ties = None) -> Tensor:
    """The place of each allowed entry within its group of its row, from 0 for the highest.

    values [B, N], groups int64 [B, N], at least 0, allowed bool [B, N], ties as in `highest` -> int64 [B, N]; what is
    not allowed is a group of its own.
    """
    import torch

    by_value = values.argsort(dim=1, descending=True, stable=True)
    if ties is not None and _has_equals(values):
        by_key = ties().flatten(1).argsort(dim=1, stable=True)
        by_value = by_key.gather(1, values.gather(1, by_key).argsort(dim=1, descending=True, stable=True))
    held = torch.where(allowed, groups, -1).gather(1, by_value)
    by_group = held.argsort(dim=1, stable=True)
    ordered = held.gather(1, by_group)
    index = torch.arange(values.shape[1], device=values.device).expand_as(ordered)
    begins = torch.ones_like(allowed)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(begins, index, 0).cummax(1).values  # where each entry's group begins
    return torch.empty_like(groups).scatter_(1, by_value.gather(1, by_group), index - first)
