"""3x3 convolutions in float32 on a CPU with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. A tile of 4x4 outputs sees 6x6 inputs;
these, the kernel and the product are transformed along both axes, and what was a convolution is 36 products of
matrices. Tiles are taken so many at a time that all of theirs stays in the processor's caches.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 4  # outputs of a tile along an axis; it sees two more inputs
CHANNELS = 96  # with fewer the transforms take what the products spare
TILES = 120  # at a time, for each thread
MOST_PACKED = 8  # copies of the kernels
GEOMETRY = ([0, 0], [1, 1], [1, 1], 36)  # of the 36 products as one convolution of so many groups
ENOUGH = 192  # tiles of a batch in training, where the kernels are transformed at each step
ENOUGH_EACH = 48  # tiles of an image

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
CONSTANT = 7  # of the 36 numbers of a product the one that all outputs of a tile have in common, with weight 1


def fits(module: Any) -> bool:
    """Whether it is torch's own plain 3x3 convolution that keeps the size, of many channels."""
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or module.groups != 1:
        return False
    square = module.kernel_size == (3, 3) and module.padding == module.stride == module.dilation == (1, 1)
    return square and min(module.in_channels, module.out_channels) >= CHANNELS


def convolved(module: Any, x: Tensor) -> Tensor:
    """Such a convolution's own forward pass [B, c, h, w] -> [B, c', h, w], in float32 on a CPU by Winograd's way."""
    weight, bias = module.weight, module.bias
    plain = x.dim() == 4 and x.device.type == weight.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if not plain or not x.dtype == weight.dtype == torch.float32 or x.shape[1] != module.in_channels:
        return type(module).forward(module, x)
    tiles = -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    if tiles < ENOUGH_EACH or len(x) * tiles < ENOUGH:
        return type(module).forward(module, x)
    made = _Convolution.apply(x, weight)
    return made if bias is None else made + bias[:, None, None]


class Winograd:
    """The zero-padded 3x3 convolution with a weight [c', c, 3, 3] and a bias [c'], in float32; equal but for rounding.

    `rectify` sets what is below zero to zero.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, rectify: bool = False) -> None:
        self._outputs, self._least = weight.shape[0], 0.0 if rectify else -float("inf")
        self._multiply = _Products(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, c', H, W], channels last in memory."""
        batch, _, height, width = x.shape
        out = x.new_empty(batch, height, width, self._outputs)
        for image, rows, data in _stripes(x):
            tiles = _constant("product") @ self._multiply(data)  # [n, 16, c']
            tiles = tiles.view(len(rows), -1, TILE, TILE, self._outputs).transpose(1, 2)  # [down, 4, across, 4, c']
            seen = out[image, TILE * rows[0] : TILE * (rows[-1] + 1)]
            if seen.numel() == tiles.numel():
                torch.clamp_min(tiles, self._least, out=seen.view(tiles.shape))
            else:  # some outputs lie beyond the map
                seen.copy_(tiles.clamp_min(self._least).flatten(2, 3).flatten(0, 1)[: len(seen), :width])
        return out.permute(0, 3, 1, 2)


class _Products:
    """Tiles [n, 36, c] -> [n, 36, c'], each of the 36 by a matrix of its own: those of a weight [c', c, 3, 3]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        outputs, inputs = weight.shape[:2]
        self._kernels = (_constant("kernel") @ weight.reshape(-1, 9).T).view(36, outputs, inputs)
        self._shift = weight.new_zeros(36, outputs)
        if bias is not None:
            self._shift[CONSTANT] = bias
        self._packed: dict[int, Tensor] = {}  # by the number of tiles, on which the best order in memory depends

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_packed": {}}  # which torch cannot copy

    def __call__(self, tiles: Tensor) -> Tensor:
        if not has_groups():
            return torch.baddbmm(self._shift[:, None], tiles.transpose(0, 1), self._kernels.mT).transpose(0, 1)
        maps = tiles.flatten(1).T[None, :, None]  # [1, 36 c, 1, n], in channels-last memory
        if len(tiles) not in self._packed:
            if len(self._packed) == MOST_PACKED:
                self._packed.clear()
            weight = self._kernels.view(-1, self._kernels.shape[-1], 1, 1)
            self._packed[len(tiles)] = _packed(weight, maps.shape)
        weight, shift = self._packed[len(tiles)], self._shift.flatten()
        made = torch.ops.mkldnn._convolution_pointwise(maps, weight, shift, *GEOMETRY, "none", [], None)
        return made[0, :, 0].T.unflatten(1, (36, -1))


def _packed(weight: Tensor, size: torch.Size) -> Tensor:
    """A weight [36 c', c, 1, 1] as oneDNN wants it for maps of this size."""
    pack: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
    return cast(Tensor, pack(weight.to_mkldnn(), *GEOMETRY, list(size)))


@lru_cache(1)
def has_groups() -> bool:
    """Whether oneDNN multiplies packed matrices here, and faster than bmm does; tried once."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return False
    maps, weight = torch.ones(2, 36).T[None, :, None], torch.ones(36, 1, 1, 1)
    try:
        packed = _packed(weight, maps.shape)
        made = torch.ops.mkldnn._convolution_pointwise(maps, packed, torch.ones(36), *GEOMETRY, "none", [], None)
    except Exception:  # a torch without oneDNN, or one that calls this otherwise
        return False
    return bool((made == 2).all())


class _Convolution(torch.autograd.Function):
    """Winograd's convolution with its gradients, which are of the same kind."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return Winograd(weight)(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of these are wanted
            wanted = [*ctx.needs_input_grad[:2], False]
            plain = (None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)
            return torch.ops.aten.convolution_backward(gradients[0], x, weight, *plain)[:2]
        by_x = Winograd(weight.flip(2, 3).transpose(0, 1))(gradients[0]) if ctx.needs_input_grad[0] else None
        return by_x, _by_weight(x, gradients[0]) if ctx.needs_input_grad[1] else None


def _by_weight(x: Tensor, dy: Tensor) -> Tensor:
    """The weight's gradient [c', c, 3, 3] of x [B, c, H, W] and the outputs' gradient [B, c', H, W]."""
    inputs, outputs = x.shape[1], dy.shape[1]
    total = x.new_zeros(36, inputs, outputs)
    below, beyond = (-side % TILE for side in x.shape[2:])
    padded = F.pad(dy.permute(0, 2, 3, 1), (0, 0, 0, beyond, 0, below))  # [B, 4 down, 4 across, c']
    split = padded.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).transpose(2, 3)  # [B, down, across, 4, 4, c']
    for image, rows, data in _stripes(x):
        seen = split[image, rows[0] : rows[-1] + 1].reshape(-1, TILE * TILE, outputs)
        tiles = _constant("product").T @ seen  # [n, 36, c']
        total.baddbmm_(data.permute(1, 2, 0), tiles.transpose(0, 1))
    return (_constant("kernel").T @ total.flatten(1)).view(3, 3, inputs, outputs).permute(3, 2, 0, 1)


def _stripes(x: Tensor) -> Iterator[tuple[int, range, Tensor]]:
    """Some tiles of maps [B, c, H, W] at a time: image, their rows in it, and their transformed data [n, 36, c]."""
    channels, height, width = x.shape[1:]
    down, across = -(-height // TILE), -(-width // TILE)
    most = max(1, min(down, round(TILES * torch.get_num_threads() / across)))
    most = -(-down // -(-down // most))  # parts of a size, if possible
    line = _constant("line")
    for image, maps in enumerate(x.permute(0, 2, 3, 1)):  # [H, W, c]
        for first in range(0, down, most):
            count = min(most, down - first)
            above, below = TILE * first - 1, TILE * (first + count) + 1
            seen = maps[max(0, above) : min(height, below)]
            beyond = TILE * across + 1 - width
            padded = F.pad(seen, (0, 0, 1, beyond, max(0, -above), max(0, below - height)))
            wide = line @ padded.unfold(1, TILE + 2, TILE).transpose(2, 3)  # [4 count + 2, across, 6, c]
            lines = wide.view(-1, across, 6 * channels).unfold(0, TILE + 2, TILE).transpose(2, 3)
            data = line @ lines  # [count, across, 6, 6 c]
            yield image, range(first, first + count), data.view(-1, 36, channels)


@lru_cache(4)
def _matrix(name: str) -> np.ndarray:
    both = {"product": OF_PRODUCT, "kernel": OF_KERNEL}
    return (OF_DATA if name == "line" else np.kron(both[name], both[name])).astype(np.float32)


def _constant(name: str) -> Tensor:
    """A transform: of a line of data [6, 6], of a kernel [36, 9], of a product [16, 36]."""
    return torch.from_numpy(_matrix(name))  # a tensor that is kept would be one of a trace's
