"""Between the image's grid and the model's: half-pixel centres, clamped at the border, everywhere.

A point is (y, x) as fractions of an image's height and width; pixel (y, x) of an H x W image has its
centre at ((y + 0.5) / H, (x + 0.5) / W).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MANY = 2**16  # points of an image that are looked up at once: four cells each are held in memory
# never taken away: a recorded step reads them where they lie, and asks for them no more
KEPT: dict[tuple[Hashable, torch.device], Tensor] = {}


def fractions(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixel centres [..., 2] of an image of this size as points."""
    return (pixels.to(torch.float32) + 0.5) / torch.tensor(size, device=pixels.device, dtype=torch.float32)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, C, h, w] at the pixels of an H x W image, bilinear: [B, C, H, W]."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def corners_around(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The upper left of the four cells of a grid of h x w around points [B, n, 2], and how far from it they are.

    The former int64, (row, column); the latter in cells, 0 to 1. Points outside count as the border's.
    """
    height, width = size
    position = within(points.float() * constant(size, points, torch.float32) - 0.5, size)
    corner = position.long().minimum(constant((max(height - 2, 0), max(width - 2, 0)), points))
    return corner, position - corner


def within(places: Tensor, size: tuple[int, int]) -> Tensor:
    """Places [..., 2] on a grid of h x w, those outside moved to its border's centres."""
    ends = ((0, 0), (size[0] - 1, size[1] - 1))
    return places.clamp(*(constant(end, places, places.dtype) for end in ends))


def cells_around(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four cells of a grid of h x w around points [B, n, 2], and what each weighs, [B, n, 4] each.

    A cell is row * w + column, the upper left one first and the lower right one last. Points outside count as the
    border's.
    """
    height, width = size
    corner, beyond = corners_around(points, size)
    below, beside = min(1, height - 1) * width, min(1, width - 1)
    first = torch.add(corner[..., 1], corner[..., 0], alpha=width)
    return first[..., None] + constant((0, beside, below, below + beside), points), weights_of(beyond)


def weights_of(beyond: Tensor) -> Tensor:
    """What the four cells weigh, [..., 4], by how far beyond the upper left one a point is, [..., 2]."""
    both = torch.stack([1 - beyond, beyond], -1)  # [..., 2, 2]
    return (both[..., 0, :, None] * both[..., 1, None, :]).flatten(-2)


def constant(values: Sequence[float], like: Tensor, kind: torch.dtype = torch.int64) -> Tensor:
    """A vector on a tensor's device, `kept` there."""
    whole = tuple(values)
    return kept((whole, kind), like, lambda: torch.tensor(whole, dtype=kind, device=like.device))


def kept(key: Hashable, like: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """What `make` gives for a key on a tensor's device; made once, as nothing is copied to a GPU in a step.

    Within a trace or a transform it is made anew: a tensor of such must not outlive it.
    """
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined]
    if traced or torch._C._are_functorch_transforms_active() or type(like) is not Tensor:
        return make()
    place = key, like.device
    if place not in KEPT:
        with torch.inference_mode(False):
            made = make()
        if type(made) is not Tensor:  # FakeTensorMode's
            return made
        KEPT[place] = made
    return KEPT[place]


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
