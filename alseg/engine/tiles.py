"""Logits of an image of any size: in one piece where it fits, else in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from alseg.grid import resize, sample

OVERLAP = 0.25  # of a tile's side, at least


def tile_starts(length: int, tile: int) -> list[int]:
    """Where tiles begin along a side so that they cover it evenly, overlapping by OVERLAP at least."""
    if length <= tile:
        return [0]
    step = max(1, int(tile * (1 - OVERLAP)))
    count = -(-(length - tile) // step) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tiled_logits(images: Tensor, look: Callable[[Tensor], Tensor], tile: int) -> Tensor:
    """Logits of images [1, 3, H, W] that `look` sees in tiles of `tile` x `tile` pixels at most.

    An image that fits is seen whole, and the logits are on the model's own grid; else they are
    [1, C, H, W] on the CPU, tiles blended with weights that fall linearly towards a tile's border.
    """
    height, width = images.shape[-2:]
    if height <= tile and width <= tile:
        return look(images)
    total: Tensor | None = None
    weights = torch.zeros(height, width)
    rows, columns = min(tile, height), min(tile, width)
    weight = _ramp(rows)[:, None] * _ramp(columns)[None]
    for top in tile_starts(height, tile):
        for left in tile_starts(width, tile):
            part = (slice(top, top + rows), slice(left, left + columns))
            logits = resize(look(images[..., part[0], part[1]]), (rows, columns)).float().cpu()
            if total is None:
                total = torch.zeros(1, logits.shape[1], height, width)
            total[(..., *part)] += logits * weight
            weights[part] += weight
    assert total is not None
    return total.div_(weights)


def strips(logits: Tensor, size: tuple[int, int], most: int = 64 * 2**20) -> list[tuple[slice, Callable[[], Tensor]]]:
    """Rows of the logits [1, C, h, w] resized to an image's size, in strips of at most `most` numbers.

    Each strip is equal to the same rows of `resize`, and computed when called.
    """
    height, width = size
    rows = max(1, min(height, most // (logits.shape[1] * width)))
    if rows == height:
        return [(slice(0, height), lambda: resize(logits, size))]
    return [
        (slice(top, min(top + rows, height)), partial(_rows, logits, top, min(top + rows, height), size))
        for top in range(0, height, rows)
    ]


def _rows(logits: Tensor, top: int, bottom: int, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits[..., top:bottom, :]
    y = (torch.arange(top, bottom, device=logits.device, dtype=torch.float32) + 0.5) / size[0]
    x = (torch.arange(size[1], device=logits.device, dtype=torch.float32) + 0.5) / size[1]
    points = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).view(1, -1, 2)
    return sample(logits, points).unflatten(2, (bottom - top, size[1]))


def _ramp(length: int) -> Tensor:
    places = torch.arange(length, dtype=torch.float32)
    return torch.minimum(places + 1, length - places) / length
