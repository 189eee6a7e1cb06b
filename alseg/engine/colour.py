"""Colour jitter, grayscale and blur of training images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import torch
from torch import Tensor

from alseg.settings import Augmentation

# Which of an image's uniform numbers decides what; the first four place it, see `augment`.
JITTER, BRIGHTNESS, CONTRAST, SATURATION, HUE, ORDER, GRAY, BLUR, SIGMA = range(4, 13)
ORDERS = list(permutations(range(4)))


def recolour(images: Tensor, draws: Sequence[Sequence[float]], change: Augmentation) -> Tensor:
    """Jitter in random order, grayscale and blur of float images [B, 3, H, W] in [0, 1], each by its own draws."""
    coloured = torch.stack([_jittered(image, drawn, change) for image, drawn in zip(images, draws, strict=True)])
    low, high = change.blur_sigma
    blurred = [i for i, drawn in enumerate(draws) if drawn[BLUR] < change.blur]
    if not blurred:
        return coloured
    sigmas = torch.tensor([low + draws[i][SIGMA] * (high - low) for i in blurred]).to(images.device, non_blocking=True)
    if len(blurred) == len(draws):
        return blur(coloured, sigmas)
    each = blur(torch.stack([coloured[i] for i in blurred]), sigmas).unbind()
    parts = list(coloured.unbind())
    for i, image in zip(blurred, each, strict=True):
        parts[i] = image
    return torch.stack(parts)


def _jittered(image: Tensor, draws: Sequence[float], change: Augmentation) -> Tensor:
    """Brightness, contrast, saturation and hue as torchvision's ColorJitter, then grayscale; [3, H, W]."""
    if draws[JITTER] < change.jitter:
        changes: tuple[Callable[[Tensor], Tensor], ...] = (
            lambda x: (x * _factor(draws[BRIGHTNESS], change.brightness)).clamp_(0, 1),
            lambda x: _blend(x, grey(x).mean(), _factor(draws[CONTRAST], change.contrast)),
            lambda x: _blend(x, grey(x), _factor(draws[SATURATION], change.saturation)),
            lambda x: turn_hue(x, (2 * draws[HUE] - 1) * change.hue),
        )
        strengths = (change.brightness, change.contrast, change.saturation, change.hue)
        for which in ORDERS[int(draws[ORDER] * len(ORDERS))]:
            image = changes[which](image) if strengths[which] else image
    return grey(image).expand(3, -1, -1) if draws[GRAY] < change.grayscale else image


def _factor(draw: float, strength: float) -> float:
    """Uniform in [max(0, 1 - strength), 1 + strength]."""
    low = max(0.0, 1 - strength)
    return low + draw * (1 + strength - low)


def _blend(image: Tensor, other: Tensor, factor: float) -> Tensor:
    """factor x image + (1 - factor) x other, in [0, 1]."""
    return torch.lerp(other.expand_as(image), image, factor).clamp_(0, 1)


def grey(image: Tensor) -> Tensor:
    """Luminance of [3, H, W] by ITU-R BT.601, [H, W]."""
    return (image[0] * 0.2989).add_(image[1], alpha=0.587).add_(image[2], alpha=0.114)


def turn_hue(image: Tensor, turn: float) -> Tensor:
    """The hue of [3, H, W] in [0, 1] turned by a share of the circle; value and saturation of HSV stay.

    A channel of HSV is V - V S clip(min(k, 4 - k), 0, 1) with k = n + 6 hue modulo 6, n = 5, 3, 1 for R, G, B.
    """
    red, green, blue = image
    highest = image.amax(0)
    spread = highest - image.amin(0)  # V x S
    by_green = (blue - red).add_(spread, alpha=2)
    by_blue = (red - green).add_(spread, alpha=4)
    sixths = torch.where(highest == red, green - blue, torch.where(highest == green, by_green, by_blue))
    sixths = sixths.div_(spread.clamp(min=1e-12)).add_(6 * turn)  # a grey pixel has spread 0 and stays
    k = torch.empty_like(image)
    for channel, n in zip(k, (5, 3, 1), strict=True):
        torch.add(sixths, n, out=channel)
    k.remainder_(6)
    return highest - spread * torch.minimum(k, 4 - k).clamp_(0, 1)


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
