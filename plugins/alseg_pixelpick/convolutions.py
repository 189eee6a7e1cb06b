"""Maps resized bilinearly, and convolutions of such maps, with less work than torch's."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alseg.grid import kept


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [B, c, h, w] resized to H x W, bilinear with half-pixel centres: [B, c, H, W] in channels-last memory.

    By one matrix an axis: on a GPU torch's own takes float32 under autocast, and its gradient adds in any order.
    """
    height, width = maps.shape[-2:]
    rows, columns = (_matrix(*axis, maps) for axis in zip(size, (height, width), strict=True))
    tall = rows @ maps.permute(0, 2, 3, 1).flatten(2)  # [B, H, w c]
    return (columns @ tall.unflatten(2, (width, -1))).permute(0, 3, 1, 2)


def _matrix(length: int, cells: int, maps: Tensor) -> Tensor:
    """[length, cells], the bilinear weights of an axis.

    Its rows lie at multiples of eight in memory, which a GPU's matrix units want.
    """

    def make() -> Tensor:
        weights = torch.zeros(length, -(-cells // 8) * 8)
        weights[:, :cells] = torch.from_numpy(_bilinear(np.arange(length), length, cells))
        return weights.to(maps.device, maps.dtype)[:, :cells]

    return kept(("bilinear", length, cells, maps.dtype), maps, make)


def resized_convolution(maps: Tensor, weight: Tensor, size: tuple[int, int]) -> Tensor:
    """A 3x3 convolution, zero-padded, of maps [B, c, h, w] resized to H x W: [B, c', H, W].

    Both are linear, so each of the nine taps is multiplied on the small grid, and their maps are resized and
    shifted together by one matrix an axis; bilinear with half-pixel centres.
    """
    kind, (height, width) = maps.dtype, maps.shape[-2:]
    taps = weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]  # [9 c', c, 1, 1]
    small = F.conv2d(maps, taps.to(kind)).permute(0, 2, 3, 1)  # [B, h, w, 9 c']
    small = small.unflatten(3, (3, 3, -1)).permute(0, 3, 1, 4, 2, 5)  # [B, 3, h, 3, w, c']
    rows = torch.from_numpy(_shifted_weights(size[0], height)).to(maps)  # [H, 3 h]
    columns = torch.from_numpy(_shifted_weights(size[1], width)).to(maps)
    tall = rows @ small.flatten(1, 2).flatten(2)  # [B, H, 3 w c']
    return (columns @ tall.unflatten(2, (3 * width, -1))).permute(0, 3, 1, 2)  # [B, H, W, c'] in memory


@lru_cache(64)
def _shifted_weights(length: int, cells: int) -> np.ndarray:
    """[length, 3 cells]: bilinear weights of the places before, at and after each; 0 beyond the ends."""
    weights = _bilinear(np.arange(-1, length + 1), length, cells)
    weights[0] = weights[-1] = 0
    # an array: a tensor made while a model is traced would be one of the trace's
    return np.concatenate([weights[:-2], weights[1:-1], weights[2:]], 1)


def _bilinear(places: np.ndarray, length: int, cells: int) -> np.ndarray:
    """[n, cells], float32: how much each of `cells` weighs at places of an axis of `length`."""
    position = np.clip((places + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    return np.clip(1 - abs(position[:, None] - np.arange(cells)), 0, None).astype(np.float32)
