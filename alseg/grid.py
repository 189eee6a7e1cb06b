"""Between the image's grid and the model's: half-pixel centres, clamped at the border, everywhere.

A point is (y, x) as fractions of an image's height and width; pixel (y, x) of an H x W image has its
centre at ((y + 0.5) / H, (x + 0.5) / W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def fractions(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixel centres [..., 2] of an image of this size as points."""
    return (pixels.to(torch.float32) + 0.5) / torch.tensor(size, device=pixels.device, dtype=torch.float32)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, C, h, w] at the pixels of an H x W image, bilinear: [B, C, H, W]."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Logits [B, C, h, w] at points [B, n, 2]: [B, C, n], equal to the resized map at these pixels.

    Four cells are gathered and weighed: unlike grid_sample's, the gradient can be deterministic on a GPU.
    """
    height, width = maps.shape[-2:]
    y = (points[..., 0].float() * height - 0.5).clamp(0, height - 1)
    x = (points[..., 1].float() * width - 0.5).clamp(0, width - 1)
    top, left = y.floor().long(), x.floor().long()
    bottom, right = (top + 1).clamp(max=height - 1), (left + 1).clamp(max=width - 1)
    down, across = (y - top)[:, None].to(maps.dtype), (x - left)[:, None].to(maps.dtype)
    flat = maps.flatten(2)

    def cells(rows: Tensor, columns: Tensor) -> Tensor:
        index = (rows * width + columns)[:, None].expand(-1, maps.shape[1], -1)
        return flat.gather(2, index)

    upper = torch.lerp(cells(top, left), cells(top, right), across)
    lower = torch.lerp(cells(bottom, left), cells(bottom, right), across)
    return torch.lerp(upper, lower, down)


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 [B, 3, *size] in [0, 1], antialiased when it shrinks."""
    scaled = images.to(torch.float32) / 255
    if tuple(images.shape[-2:]) == size:
        return scaled
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False, antialias=True)
