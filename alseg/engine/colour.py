"""Colour jitter, grayscale and blur of training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from alseg.settings import Augmentation

# Which of an image's uniform numbers decides what; the first four place it, see `augment`.
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER, GRAY, BLUR, SIGMA = range(4, 13)
ORDERS = list(permutations(range(4)))


def recolour(images: Tensor, draws: Sequence[Sequence[float]], change: Augmentation) -> Tensor:
    """Jitter in random order, grayscale and blur of float images [B, 3, H, W] in [0, 1], each by its own draws."""
    if images.device.type == "cpu":  # one after the other, since the caches hold one
        coloured = torch.stack([_jittered(image, drawn, change) for image, drawn in zip(images, draws, strict=True)])
    else:
        coloured = jittered_together(images, draws, change)
    low, high = change.blur_sigma
    blurred = [i for i, drawn in enumerate(draws) if drawn[BLUR] < change.blur]
    if not blurred:
        return coloured
    sigmas = torch.tensor([low + draws[i][SIGMA] * (high - low) for i in blurred]).to(images.device, non_blocking=True)
    if len(blurred) == len(draws):
        return blur(coloured, sigmas)
    where = torch.tensor(blurred).to(images.device, non_blocking=True)
    return coloured.index_copy_(0, where, blur(coloured.index_select(0, where), sigmas))


def _jittered(image: Tensor, draws: Sequence[float], change: Augmentation) -> Tensor:
    """Brightness, contrast, saturation and hue as torchvision's ColorJitter, then grayscale; [3, H, W]."""
    for which, factor in _changes(draws, change):
        image = CHANGES[which](image, factor)
    return image


def jittered_together(images: Tensor, draws: Sequence[Sequence[float]], change: Augmentation) -> Tensor:
    """The same for images [B, 3, H, W], those with the same change next at a time: fewer calls, for a GPU."""
    steps = [list(_changes(drawn, change)) for drawn in draws]
    plan: list[tuple[int, list[int]]] = []  # changes in turn, each with its images
    factors: list[float] = []
    for turn in range(max(map(len, steps))):
        for which in range(len(CHANGES)):
            members = [i for i, taken in enumerate(steps) if len(taken) > turn and taken[turn][0] == which]
            if members:
                plan.append((which, members))
                factors += [steps[i][turn][1] for i in members]
    if not plan:
        return images.clone()
    numbers = torch.tensor([i for _, members in plan for i in members]).to(images.device, non_blocking=True)
    strengths = torch.tensor(factors).to(images.device, non_blocking=True)[:, None, None, None]
    images, first = images.clone(), 0
    for which, members in plan:
        some = slice(first, first := first + len(members))
        changed = CHANGES[which](images.index_select(0, numbers[some]), strengths[some])
        images.index_copy_(0, numbers[some], changed)
    return images


def _changes(draws: Sequence[float], change: Augmentation) -> Iterator[tuple[int, float]]:
    """What is done to an image, as places in CHANGES, and how much, in order."""
    if draws[JITTER] < change.jitter:
        much = (
            (change.brightness, _factor(draws[BRIGHTNESS], change.brightness)),
            (change.contrast, _factor(draws[CONTRAST], change.contrast)),
            (change.saturation, _factor(draws[SATURATION], change.saturation)),
            (change.hue, (2 * draws[HUE] - 1) * change.hue),
        )
        for which in ORDERS[int(draws[ORDER] * len(ORDERS))]:
            strength, factor = much[which]
            if strength:
                yield which, factor
    if draws[GRAY] < change.grayscale:
        yield len(CHANGES) - 1, 1.0


def _factor(draw: float, strength: float) -> float:
    """Uniform in [max(0, 1 - strength), 1 + strength]."""
    low = max(0.0, 1 - strength)
    return low + draw * (1 + strength - low)


def _blend(images: Tensor, other: Tensor, factor: float | Tensor) -> Tensor:
    """factor x images + (1 - factor) x other, in [0, 1]."""
    return torch.lerp(other.expand_as(images), images, factor).clamp_(0, 1)


def grey(images: Tensor) -> Tensor:
    """Luminance of [..., 3, H, W] by ITU-R BT.601, [..., 1, H, W]."""
    red, green, blue = images.split(1, -3)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def turn_hue(images: Tensor, turn: float | Tensor) -> Tensor:
    """The hue of [..., 3, H, W] in [0, 1] turned by a share of the circle; value and saturation of HSV stay.

    A channel of HSV is V - V S clip(min(k, 4 - k), 0, 1) with k = n + 6 hue modulo 6, n = 5, 3, 1 for R, G, B.
    """
    red, green, blue = images.split(1, -3)
    highest = images.amax(-3, keepdim=True)
    spread = highest - images.amin(-3, keepdim=True)  # V x S
    by_green = (blue - red).add_(spread, alpha=2)
    by_blue = (red - green).add_(spread, alpha=4)
    sixths = torch.where(highest == red, green - blue, torch.where(highest == green, by_green, by_blue))
    sixths = sixths.div_(spread.clamp(min=1e-12)).add_(6 * turn)  # a grey pixel has spread 0 and stays
    k = torch.empty_like(images)
    for channel, n in zip(k.split(1, -3), (5, 3, 1), strict=True):
        torch.add(sixths, n, out=channel)
    k.remainder_(6)
    return highest - spread * torch.minimum(k, 4 - k).clamp_(0, 1)


# Of images [..., 3, H, W] by a factor, or one for each; the last is drawn apart from the others.
CHANGES: tuple[Callable[[Tensor, Any], Tensor], ...] = (
    lambda x, factor: (x * factor).clamp_(0, 1),
    lambda x, factor: _blend(x, grey(x).mean((-2, -1), keepdim=True), factor),
    lambda x, factor: _blend(x, grey(x), factor),
    turn_hue,
    lambda x, factor: grey(x).expand_as(x),
)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of [B, 3, H, W] by sigmas [B] in pixels, mirrored at the border.

    The kernel is a tenth of the shorter side wide, rounded to odd, as the published code's. It is two products
    with band matrices: a convolution with so wide a kernel takes five times as long.
    """
    height, width = images.shape[-2:]
    radius = int(0.1 * min(height, width)) // 2
    if radius == 0:
        return images
    down, across = (_gaussian(length, radius, sigmas)[:, None] for length in (height, width))
    return down @ images @ across.transpose(2, 3)


def _gaussian(length: int, radius: int, sigmas: Tensor) -> Tensor:
    """Weights [B, length, length] of a truncated Gaussian along a mirrored axis; length > 2 x radius."""
    place = torch.arange(length, device=sigmas.device)
    bell = torch.exp(-0.5 * (place / sigmas[:, None]).square()).where(place <= radius, 0)  # [B, length], by distance
    weights = bell[:, (place[:, None] - place).abs()]
    mirrored = bell[:, place[:radius, None] + place[1 : radius + 1]]  # the border itself is not mirrored
    weights[:, :radius, 1 : radius + 1] += mirrored
    weights[:, -radius:, -radius - 1 : -1] += mirrored.flip(1, 2)
    return weights.div_(weights.sum(2, keepdim=True))
