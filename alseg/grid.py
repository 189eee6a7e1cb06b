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
    """Logits [B, C, h, w] at points [B, n, 2]: [B, C, n], equal to the resized map at these pixels."""
    grid = points.flip(-1).unsqueeze(1) * 2 - 1  # (x, y) in [-1, 1], [B, 1, n, 2]
    sampled = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.squeeze(2)


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [B, 3, H, W] -> float32 [B, 3, *size] in [0, 1], antialiased when it shrinks."""
    scaled = images.to(torch.float32) / 255
    if tuple(images.shape[-2:]) == size:
        return scaled
    return F.interpolate(scaled, size=size, mode="bilinear", align_corners=False, antialias=True)
