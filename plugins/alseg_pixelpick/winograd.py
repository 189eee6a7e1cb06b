"""3x3 convolution with a quarter of the multiplications (Lavin and Gray, CVPR 2016): F(4x4, 3x3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4  # outputs of a tile along an axis; it sees two more inputs

# The paper's transforms of a line of data, of the kernel and of the product.
OF_DATA = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
OF_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OF_PRODUCT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


class Winograd:
    """The zero-padded 3x3 convolution with a weight [c', c, 3, 3], float32; equal but for rounding."""

    def __init__(self, weight: Tensor) -> None:
        kernels = np.kron(OF_KERNEL, OF_KERNEL) @ weight.double().numpy().reshape(-1, 9).T  # [36, c' c]
        kernels = kernels.reshape(36, *weight.shape[:2]).transpose(0, 2, 1)
        self._kernels = torch.from_numpy(np.ascontiguousarray(kernels, np.float32))  # [36, c, c']
        self._of_data = torch.from_numpy(np.kron(OF_DATA, OF_DATA).astype(np.float32))  # [36, 36]
        self._of_product = torch.from_numpy(np.kron(OF_PRODUCT, OF_PRODUCT).astype(np.float32))  # [16, 36]

    def __call__(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, c', H, W], channels last in memory."""
        batch, channels, height, width = x.shape
        down, across = -(-height // TILE), -(-width // TILE)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, TILE * across + 1 - width, 1, TILE * down + 1 - height))
        # [B, down, across, c, 6, 6], overlapping
        tiles = padded.unfold(1, TILE + 2, TILE).unfold(2, TILE + 2, TILE)
        data = self._of_data @ tiles.permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
        product = torch.bmm(data.view(36, -1, channels), self._kernels)
        out = (self._of_product @ product.flatten(1)).view(TILE, TILE, batch, down, across, -1)
        out = out.permute(2, 3, 0, 4, 1, 5).reshape(batch, TILE * down, TILE * across, -1)  # [B, H, W, c'], rounded up
        return out[:, :height, :width].permute(0, 3, 1, 2)
