"""The paper's way, written plainly: dense masks, full-size logits, one image at a time.

It computes the same loss, the same utilities and the same augmented images as alseg (a test compares them).
Contiguous float32; masks of void with ten known pixels; logits upsampled to the image's size; cross-entropy over the
whole map; a confusion matrix on the CPU at each training step; images augmented one after the other by torchvision's
functions; acquisition and evaluation at batch 1; an image file is decoded whenever its image is used.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TVF

from alseg.engine.augment import Geometry
from alseg.engine.colour import (
    BLUR,
    BRIGHTNESS,
    CONTRAST,
    GRAY,
    HUE,
    JITTER,
    ORDER,
    ORDERS,
    SATURATION,
    SIGMA,
)
from alseg.settings import Augmentation

VOID = 255


def plain(model: nn.Module) -> nn.Module:
    """A copy of a model in contiguous memory."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def full_size_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] -> logits [B, C, H, W], by DeepLabv3+'s layers one after the other."""
    layers: Any = model
    low, high = layers.encoder(images)
    low, high = layers.low_level(low), layers.aspp(high)
    high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
    x = layers.first_dropout(layers.first(torch.cat([high, low], 1)))
    x = layers.classifier(layers.second_dropout(layers.second(x)))
    return F.interpolate(x, size=images.shape[-2:], mode="bilinear", align_corners=False)


def loss(model: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels of masks [B, H, W] that are not VOID."""
    return F.cross_entropy(full_size_logits(model, images), masks, ignore_index=VOID)


def training_step(model: nn.Module, descent: torch.optim.Optimizer, images: Tensor, masks: Tensor) -> np.ndarray:
    """One step, and the confusion matrix of its predictions at the known pixels, on the CPU."""
    logits = full_size_logits(model, images)
    error = F.cross_entropy(logits, masks, ignore_index=VOID)
    descent.zero_grad()
    error.backward()
    descent.step()
    return confusion(masks.cpu().numpy(), logits.argmax(1).cpu().numpy(), logits.shape[1])


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[C, C], rows truth."""
    known = truth < classes
    index = truth[known].astype(np.int64) * classes + predicted[known]
    return np.bincount(index, minlength=classes**2).reshape(classes, classes)


def decode(path: Path) -> np.ndarray:
    """An image file, uint8 [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def as_tensor(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [1, 3, H, W] in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float().div(255).contiguous()


def on_device_of(model: nn.Module, image: Tensor) -> Tensor:
    """An image where the model is."""
    return image.to(next(model.parameters()).device)


@torch.no_grad()
def margin_map(model: nn.Module, image: np.ndarray) -> np.ndarray:
    """Second highest minus highest probability, float32 [H, W]."""
    chances = full_size_logits(model, on_device_of(model, as_tensor(image))).softmax(1)[0]
    top = chances.topk(2, 0).values
    return (top[1] - top[0]).cpu().numpy()


def acquire(
    model: nn.Module, images: Sequence[np.ndarray], free: Sequence[np.ndarray], n: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Of each image's 5 % candidates of highest utility, n at random: flat indices [n]."""
    picked = []
    for image, candidates in zip(images, free, strict=True):
        utility = np.where(candidates, margin_map(model, image), -np.inf).ravel()
        share = max(n, int(np.ceil(0.05 * candidates.sum())))
        picked.append(random.choice(np.argsort(-utility)[:share], n, replace=False))
    return picked


@torch.no_grad()
def evaluate(model: nn.Module, images: Sequence[np.ndarray], masks: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """The confusion matrix, one image after the other."""
    total = np.zeros((classes, classes), np.int64)
    for image, mask in zip(images, masks, strict=True):
        predicted = full_size_logits(model, on_device_of(model, as_tensor(image))).argmax(1)[0].cpu().numpy()
        total += confusion(mask, predicted, classes)
    return total


def augmented(image: Tensor, geometry: Geometry, draws: Sequence[float], change: Augmentation) -> Tensor:
    """An image uint8 [3, H, W], scaled, padded, cropped, flipped and coloured as drawn, float32 in [0, 1]."""
    x = TVF.resize(image.float() / 255, list(geometry.scaled), antialias=True)
    height, width = geometry.crop
    missing = [0, 0, max(0, width - x.shape[2]), max(0, height - x.shape[1])]  # left, top, right, bottom
    x = TVF.pad(x, missing, fill=list(change.fill))
    x = TVF.crop(x, geometry.top, geometry.left, height, width)
    if geometry.flip:
        x = TVF.horizontal_flip(x)
    if draws[JITTER] < change.jitter:
        x = jittered(x, draws, change)
    if draws[GRAY] < change.grayscale:
        x = TVF.rgb_to_grayscale(x, num_output_channels=3)
    if draws[BLUR] < change.blur:
        low, high = change.blur_sigma
        side = 2 * (int(0.1 * min(height, width)) // 2) + 1
        x = TVF.gaussian_blur(x, [side, side], [low + draws[SIGMA] * (high - low)])
    return x


def augmented_mask(mask: Tensor, geometry: Geometry) -> Tensor:
    """A mask [H, W] resized by nearest neighbour, padded with VOID, cropped and flipped as its image is."""
    resized = Image.fromarray(mask.numpy().astype(np.uint8)).resize(geometry.scaled[::-1], Image.Resampling.NEAREST)
    x = torch.from_numpy(np.asarray(resized).astype(np.int64))[None]
    height, width = geometry.crop
    x = TVF.pad(x, [0, 0, max(0, width - x.shape[2]), max(0, height - x.shape[1])], fill=VOID)
    x = TVF.crop(x, geometry.top, geometry.left, height, width)
    return (TVF.horizontal_flip(x) if geometry.flip else x)[0]


def jittered(x: Tensor, draws: Sequence[float], change: Augmentation) -> Tensor:
    """Brightness, contrast, saturation and hue of [3, H, W] in the drawn order."""
    adjusters = (TVF.adjust_brightness, TVF.adjust_contrast, TVF.adjust_saturation)
    strengths = (change.brightness, change.contrast, change.saturation)
    for which in ORDERS[int(draws[ORDER] * len(ORDERS))]:
        if which == 3:
            x = TVF.adjust_hue(x, (2 * draws[HUE] - 1) * change.hue)
        else:
            low, draw = max(0.0, 1 - strengths[which]), draws[(BRIGHTNESS, CONTRAST, SATURATION)[which]]
            x = adjusters[which](x, low + draw * (1 + strengths[which] - low))
    return x
