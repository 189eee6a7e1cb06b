"""Patches of the decoder's input around points, without the map that they are cut from.

What is computed is small, and on a GPU costs its kernels, whatever they do: both axes are computed at once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alseg.grid import constant, within

SIDE = 6  # of a patch: two 3x3 convolutions on it give the 2x2 cells around a point
WINDOW = range(-2, SIDE - 2)  # from the upper left one of these
R2 = (0.7548776662466927, 0.5698402909980532)  # 1 / p and 1 / p^2, p^3 = p + 1: steps that fill a square evenly


def fused_patches(low: Tensor, context: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoder sees around the 2x2 cells at `corners` [B, m, 2] of the low-level map's grid.

    low: [B, c, h, w]. context: [B, c', h', w'], which is resized to h x w bilinearly. Gives
    [B * m, c' + c, 6, 6], zero outside the map, and which of the inner 4x4 lie inside, [B * m, 1, 4, 4].
    """
    size = (low.shape[-2], low.shape[-1])
    places = corners[:, :, None] + constant(WINDOW, corners)[:, None]  # [B, m, 6, 2]
    held = within(places, size)
    rows, columns = (places == held).unbind(-1)
    inside = (rows[..., :, None] & columns[..., None, :]).flatten(0, 1)  # [B * m, 6, 6]
    parts = [_resized(context, held, size), _gathered(low, held)]
    patches = torch.cat(parts, -1).flatten(0, 1)  # [B * m, 6, 6, c' + c]
    patches = torch.where(inside[..., None], patches, 0)
    return patches.permute(0, 3, 1, 2), inside[:, None, 1:5, 1:5].to(torch.float32)


def drawn_cells(batch: int, count: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """Cells [B, count, 2] of a grid of h x w on a tensor's device, each uniform, spread evenly over it.

    Roberts' R2 sequence under a random shift of the torus (Cranley and Patterson, 1976): what is averaged
    over them varies less than over independent points.
    """
    steps = [(number * part) % 1 for number in range(count) for part in R2]
    shifted = torch.rand(batch, 1, 2, device=like.device) + constant(steps, like, torch.float32).view(-1, 2)
    return (shifted.frac() * constant(size, like, torch.float32)).long()


def _gathered(maps: Tensor, places: Tensor) -> Tensor:
    """Cells [B, m, r, r, c] of maps [B, c, h, w] at the rows and columns of places [B, m, r, 2]."""
    batch, channels, height, width = maps.shape
    rows, columns = places.unbind(-1)
    above = constant(range(0, batch * height, height), places)[:, None, None]  # rows of the images before
    index = torch.add(columns[..., None, :], (rows + above)[..., :, None], alpha=width)
    flat = maps.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of a channels-last map
    return flat.index_select(0, index.flatten()).view(*index.shape, channels)


def _resized(maps: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """The same of maps [B, c, h', w'] resized to `size`, bilinear with half-pixel centres: [B, m, 6, 6, c].

    The few cells that a patch depends on are gathered once and weighed by one matrix a patch.
    """
    small = (maps.shape[-2], maps.shape[-1])
    position = within((places + 0.5) * _steps(small, size, places) - 0.5, small)  # in cells of the small grid
    # a patch spans so many cells at most: the places' own span, rounded outwards
    count = min(
        max(small), max(int((SIDE - 1) * cells / length) + 3 for cells, length in zip(small, size, strict=True))
    )
    number = position[:, :, :1].long() + constant(range(count), places)[:, None]  # [B, m, k, 2]
    # those beyond the small grid weigh nothing
    rows, columns = (1 - (position[:, :, :, None] - number[:, :, None]).abs()).clamp(min=0).unbind(-1)  # [B, m, 6, k]
    weights = (rows[:, :, :, None, :, None] * columns[:, :, None, :, None]).flatten(4).flatten(2, 3)  # [B, m, 36, k k]
    cells = _gathered(maps, within(number, small)).flatten(2, 3)  # [B, m, k k, c]
    return (weights.to(maps.dtype) @ cells).unflatten(2, (SIDE, SIDE))


def _steps(small: tuple[int, int], size: tuple[int, int], like: Tensor) -> Tensor:
    """How long a step of the large grid is in cells of the small one, [2]."""
    return constant((small[0] / size[0], small[1] / size[1]), like, torch.float32)
