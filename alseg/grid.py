"""Between the image's grid and the model's: half-pixel centres, clamped at the border, everywhere.

A point is (y, x) as fractions of an image's height and width; pixel (y, x) of an H x W image has its
centre at ((y + 0.5) / H, (x + 0.5) / W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MANY = 2**16  # points of an image that are looked up at once: four cells each are held in memory


def fractions(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixel centres [..., 2] of an image of this size as points."""
    return (pixels.to(torch.float32) + 0.5) / torch.tensor(size, device=pixels.device, dtype=torch.float32)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, C, h, w] at the pixels of an H x W image, bilinear: [B, C, H, W]."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def cells_around(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four cells of a grid of h x w around points [B, n, 2], and what each weighs, [B, n, 4] each.

    A cell is row * w + column, the upper left one first and the lower right one last. Points outside count as the
    border's.
    """
    height, width = size
    # numbers, not tensors made of them: those would be copied to a GPU at each step, which waits for it
    y = (points[..., 0].float() * height - 0.5).clamp(0, height - 1)
    x = (points[..., 1].float() * width - 0.5).clamp(0, width - 1)
    top, left = y.floor().clamp(max=max(height - 2, 0)), x.floor().clamp(max=max(width - 2, 0))
    down, across = y - top, x - left
    first = top.long() * width + left.long()
    below, beside = min(1, height - 1) * width, min(1, width - 1)
    rows, columns = torch.stack([1 - down, down], -1), torch.stack([1 - across, across], -1)
    weights = (rows[..., :, None] * columns[..., None, :]).flatten(-2)
    return torch.stack([first, first + beside, first + below, first + (below + beside)], -1), weights


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Logits [B, C, h, w] at points [B, n, 2]: [B, C, n], equal to the resized map at these pixels.

    Four cells are gathered and weighed: unlike grid_sample's, the gradient can be deterministic on a GPU.
    """
    if points.shape[1] > MANY:
        return torch.cat([sample(maps, part) for part in points.split(MANY, 1)], 2)
    cells, weights = cells_around(points, (maps.shape[-2], maps.shape[-1]))  # [B, n, 4] each
    index = cells.flatten(1)[:, None].expand(-1, maps.shape[1], -1)
    found = maps.flatten(2).gather(2, index).unflatten(2, (-1, 4))  # [B, C, n, 4]
    return (found * weights[:, None].to(maps.dtype)).sum(3)


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 [B, 3, *size] in [0, 1], antialiased when it shrinks."""
    scaled = images.to(torch.float32) / 255
    if tuple(images.shape[-2:]) == size:
        return scaled
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False, antialias=True)
