"""Patches of the decoder's input around points, without the map that they are cut from."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 6  # of a patch: two 3x3 convolutions on it give the 2x2 cells around a point


def fused_patches(low: Tensor, context: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoder sees around the 2x2 cells at `corners` [B, m, 2] of the low-level map's grid.

    low: [B, c, h, w]. context: [B, c', h', w'], which is resized to h x w bilinearly. Gives
    [B * m, c' + c, 6, 6], zero outside the map, and which of the inner 4x4 lie inside, [B * m, 1, 4, 4].
    """
    height, width = low.shape[-2:]
    window = torch.arange(-2, SIDE - 2, device=low.device)
    rows = corners[..., 0, None] + window  # [B, m, 6]
    columns = corners[..., 1, None] + window
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[..., None, :]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    parts = [_resized(context, rows, columns, (height, width)), _gathered(low, rows, columns)]
    patches = torch.cat(parts, -1).flatten(0, 1)  # [B * m, 6, 6, c' + c]
    inside = inside.flatten(0, 1)
    patches = torch.where(inside[..., None], patches, 0)
    return patches.permute(0, 3, 1, 2), inside[:, None, 1:5, 1:5].to(torch.float32)


def _gathered(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cells [B, m, r, s, c] of maps [B, c, h, w] at rows [B, m, r] and columns [B, m, s]."""
    batch, channels, height, width = maps.shape
    image = torch.arange(batch, device=maps.device)[:, None, None, None] * (height * width)
    index = image + rows[..., :, None] * width + columns[..., None, :]
    flat = maps.permute(0, 2, 3, 1).reshape(-1, channels)  # a view of a channels-last map
    return flat.index_select(0, index.flatten()).view(*index.shape, channels)


def _resized(maps: Tensor, rows: Tensor, columns: Tensor, size: tuple[int, int]) -> Tensor:
    """The same of maps [B, c, h', w'] resized to `size`, bilinear with half-pixel centres: [B, m, 6, 6, c].

    The few cells that a patch depends on are gathered once and weighed by one matrix an axis.
    """
    channels, height, width = maps.shape[1:]
    first_row, by_row = _weights(rows, height, size[0])
    first_column, by_column = _weights(columns, width, size[1])
    span = torch.arange(by_row.shape[-1], device=maps.device)
    across = torch.arange(by_column.shape[-1], device=maps.device)
    cells = _gathered(
        maps,
        (first_row[..., None] + span).clamp(max=height - 1),
        (first_column[..., None] + across).clamp(max=width - 1),
    )  # [B, m, k, l, c]
    kind = maps.dtype
    seen = (by_row.to(kind) @ cells.flatten(3)).unflatten(3, (-1, channels))  # [B, m, 6, l, c]
    return by_column.to(kind)[:, :, None] @ seen


def _weights(places: Tensor, cells: int, length: int) -> tuple[Tensor, Tensor]:
    """The first cell [B, m] that places [B, m, 6] of an axis of `length` see, and their weights [B, m, 6, k]."""
    position = ((places + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)
    lower = position.floor()
    fraction = (position - lower)[..., None]
    first = lower[..., :1].amin(-1).long()
    # a patch spans so many cells at most: the places' own span, rounded outwards
    count = min(cells, int((SIDE - 1) * cells / length) + 3)
    offset = (lower.long() - first[..., None])[..., None]
    number = torch.arange(count, device=places.device)
    return first, torch.where(number == offset, 1 - fraction, 0.0) + torch.where(number == offset + 1, fraction, 0.0)
