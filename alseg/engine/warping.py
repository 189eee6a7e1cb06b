"""Images scaled, cropped and flipped, each by one matrix an axis: `out = rows @ image @ columns^T`.

A row holds the antialiased bilinear weights of one pixel of the crop, mirrored for a flip, or zeros where the crop is
padding. On a GPU a batch's matrices are multiplied as they are. On a CPU only their blocks are, outside of which all
weights are zero: a photograph has ten times as many rows as a pixel of the crop sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor

import torch
from torch import Tensor

from alseg.engine.augment import Geometry

BLOCK = 48  # pixels of the crop whose weights are one block, at most
SEEN = 160  # pixels of the source that such a block sees where that many see more: larger ones do not fit into caches


def warp(images: Sequence[Tensor], geometries: Sequence[Geometry], fill: Tensor) -> Tensor:
    """uint8 [3, H, W] each -> float32 [B, 3, crop_H, crop_W] in [0, 1]; `fill` [3] where the crop is padding."""
    if images[0].device.type == "cpu":
        crops = [_in_blocks(image, geometry, fill) for image, geometry in zip(images, geometries, strict=True)]
        return torch.stack(crops)
    if len({image.shape for image in images}) == 1:
        return _whole(torch.stack(list(images)), geometries, fill)
    each = zip(images, geometries, strict=True)
    return torch.cat([_whole(image[None], [geometry], fill) for image, geometry in each])


def _whole(images: Tensor, geometries: Sequence[Geometry], fill: Tensor) -> Tensor:
    """`warp` of uint8 [B, 3, H, W] by few kernels."""
    (height, width), (down, across) = images.shape[-2:], geometries[0].crop
    # all that the device must be told, in one copy: [B, 5]
    told = torch.tensor([(*g.scaled, g.top, g.left, g.flip) for g in geometries]).to(images.device, non_blocking=True)
    target = torch.arange(max(down, across), device=images.device)
    rows = _of_axis(height, told[:, 0], told[:, 2], target[:down])
    columns = _of_axis(width, told[:, 1], told[:, 3], target[:across])
    columns = torch.where(told[:, 4, None, None] > 0, columns.flip(1), columns)
    moved = rows[:, None] @ (images.to(torch.float32) / 255) @ columns.transpose(1, 2)[:, None]
    padding = 1 - rows.sum(2)[:, :, None] * columns.sum(2)[:, None]
    return moved + fill[:, None, None] * padding[:, None]


def _of_axis(size: int, scaled: Tensor, start: Tensor, target: Tensor) -> Tensor:
    """Weights [B, count, size] of an axis's pixels at start + target; zeros beyond the end of `scaled`."""
    target = start[:, None] + target  # [B, count]
    weights = _weights(torch.arange(size, device=start.device), target, (size / scaled.double())[:, None])
    return weights.where((target < scaled[:, None])[..., None], 0).float()


def _weights(source: Tensor, target: Tensor, ratio: Tensor | float) -> Tensor:
    """Antialiased bilinear weights of `source` pixels [n] for scaled ones [..., m], each `ratio` long: [..., m, n].

    float64; a row sums to 1.
    """
    support = torch.as_tensor(ratio).clamp(min=1)[..., None]  # shrinking widens the triangle
    distance = source + 0.5 - ((target.double() + 0.5) * ratio)[..., None]
    weights = (1 - distance.abs() / support).clamp(min=0)
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)


def _in_blocks(image: Tensor, geometry: Geometry, fill: Tensor) -> Tensor:
    """`warp` of one image: [3, crop_H, crop_W]."""
    crop = fill[:, None, None].repeat(1, *geometry.crop)
    rows = list(_blocks(geometry.source[0], geometry.scaled[0], geometry.top, geometry.crop[0]))
    columns = list(_blocks(geometry.source[1], geometry.scaled[1], geometry.left, geometry.crop[1]))
    down, across = rows[-1][0].stop, columns[-1][0].stop  # where padding begins
    left = columns[0][1].start
    pixels = image.permute(1, 2, 0)[:, left : columns[-1][1].stop]  # [H, w, 3], as files are decoded
    tall = torch.empty(down, 3 * pixels.shape[1])
    for there, seen, weights in rows:
        shown = pixels[seen].to(torch.float32).div_(255)
        torch.mm(weights, shown.reshape(weights.shape[1], -1), out=tall[there])
    tall = tall.view(down, -1, 3).permute(2, 0, 1).reshape(3 * down, -1)
    wide = torch.empty(3 * down, across)
    for there, seen, weights in columns:
        torch.mm(tall[:, seen.start - left : seen.stop - left], weights.T, out=wide[:, there])
    found = wide.view(3, down, across)
    if geometry.flip:
        crop[:, :down, geometry.crop[1] - across :] = found.flip(2)
    else:
        crop[:, :down, :across] = found
    return crop


def _blocks(size: int, scaled: int, start: int, count: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """Pixels of the crop, the pixels of the source that they see, and float32 weights of these, [pixels, seen]."""
    ratio, end = size / scaled, min(count, scaled - start)
    reach, many = max(1.0, ratio), max(1, min(BLOCK, round(SEEN / ratio)))
    for first in range(0, end, many):
        there = slice(first, min(first + many, end))
        begin = max(0, floor((start + there.start + 0.5) * ratio - reach))
        seen = slice(begin, min(size, ceil((start + there.stop - 0.5) * ratio + reach)))
        target = torch.arange(start + there.start, start + there.stop)
        yield there, seen, _weights(torch.arange(seen.start, seen.stop), target, ratio).float()
