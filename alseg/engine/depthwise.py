"""Depthwise convolutions in training, whose gradients torch's kernels take long for.

- On a GPU, Triton's kernels do them.
- On a CPU, one with a stride is slow in bfloat16 and that of the same one without a stride is not; a dilated one is a
  plain one of the interleaved sub-grids that it sees apart.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine import aside
from alseg.engine.attempts import works

FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class Geometry(NamedTuple):
    """Of a convolution, the same down and across."""

    stride: int
    padding: int
    rate: int  # of dilation

    def size(self, x: Tensor, side: int) -> tuple[int, int]:
        """Rows and columns of what a kernel of side x side makes of maps."""
        height, width = (
            (length + 2 * self.padding - self.rate * (side - 1) - 1) // self.stride + 1 for length in x.shape[2:]
        )
        return height, width


def is_depthwise(module: Any) -> bool:
    """Whether it is one of torch's own depthwise convolutions, padded by so many zeros."""
    if type(module) is not nn.Conv2d or not 1 < module.groups == module.in_channels:
        return False
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def convolved(module: Any, x: Tensor) -> Tensor:
    """A depthwise convolution's own forward pass, by the faster way where it fits."""
    device, weight, bias = x.device.type, module.weight, module.bias
    if not torch.is_grad_enabled() or x.dim() != 4 or device not in ("cpu", "cuda"):
        return type(module).forward(module, x)
    lower = torch.is_autocast_enabled(device) and x.dtype in FLOATS
    kind = torch.get_autocast_dtype(device) if lower else x.dtype
    known = kind in FLOATS and (lower or weight.dtype == kind)
    if device == "cuda" and known and (geometry := _geometry(module)) and _fits(x, weight, geometry):
        out = _Direct.apply(x.to(kind), weight, geometry)
        return out if bias is None else out + bias.to(kind)[:, None, None]
    if device == "cpu" and kind == torch.bfloat16 and module.stride != (1, 1) == module.dilation:
        return _Strided.apply(x.to(kind), weight, bias, module.stride, module.padding, module.groups)
    if device == "cpu" and bias is None and (geometry := _geometry(module)) and _interleaves(geometry, weight):
        return _Interleaved.apply(x.to(kind), weight, geometry.rate)
    return type(module).forward(module, x)


def _geometry(module: Any) -> Geometry | None:
    """A convolution's, if it is one as networks have them, which gives as many maps as it is given."""
    sides = module.kernel_size, module.stride, module.padding, module.dilation
    (kernel, stride, padding, rate), square = (side[0] for side in sides), all(a == b for a, b in sides)
    known = kernel in (3, 5, 7) and (stride == 1 or (stride == 2 and rate == 1))
    return Geometry(stride, padding, rate) if square and known and module.out_channels == module.in_channels else None


def _fits(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    """Whether the kernels can do it here; what they cannot, or is a mistake, is torch's."""
    (height, width), (batch, channels, *before) = geometry.size(x, weight.shape[-1]), x.shape
    if channels != len(weight) or x.device != weight.device or min(batch, height, width, *before) < 1:
        return False
    return batch * channels * max(height * width, before[0] * before[1]) < 2**30 and has_kernels(x.device)


def _interleaves(geometry: Geometry, weight: Tensor) -> bool:
    """Whether it is dilated and keeps the size."""
    return geometry.rate > 1 and geometry.padding == geometry.rate * (weight.shape[-1] // 2)


@lru_cache
def has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels work on a device."""

    def attempt() -> None:
        from alseg.engine import depthwise_kernels

        x = torch.ones(1, 16, 3, 3, device=device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        depthwise_kernels.convolved(x, torch.ones(16, 1, 3, 3, device=device), Geometry(1, 1, 1), (3, 3))

    return works("depthwise convolutions", attempt, device)


class _Direct(torch.autograd.Function):
    """`depthwise_kernels` with their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        from alseg.engine import depthwise_kernels

        ctx.leaf, ctx.geometry = weight, geometry
        ctx.aside = aside.here() if weight.is_leaf and not aside.watched(weight) else None
        x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
        ctx.save_for_backward(x, weight)
        return depthwise_kernels.convolved(x, weight, geometry, geometry.size(x, weight.shape[-1]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from alseg.engine import depthwise_kernels

        x, weight = ctx.saved_tensors
        if torch.is_grad_enabled():  # whoever wants the gradient's own gradient has it from torch
            return *_gradients(x, gradients[0], weight, ctx.geometry, ctx.needs_input_grad[:2]), None
        dy, by_x, by_weight = gradients[0].contiguous(memory_format=torch.channels_last), None, None
        if ctx.needs_input_grad[1]:
            by_kernel = weight.shape[-1] == 3  # cuDNN is faster for the larger ones
            work = depthwise_kernels.weight_gradient if by_kernel else _weight_gradient
            weighed = partial(work, x, dy, weight, ctx.geometry)
            if ctx.aside is None or not ctx.aside.takes:
                by_weight = weighed()
            else:
                ctx.aside.later(lambda: {ctx.leaf: weighed()}, dy.numel())
        if ctx.needs_input_grad[0]:
            by_x = depthwise_kernels.input_gradient(dy, weight, ctx.geometry, x.shape[2:])
        return by_x, by_weight, None


def _gradients(
    x: Tensor, dy: Tensor, weight: Tensor, geometry: Geometry, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """torch's own, of the input and of the weight, in the input's dtype."""
    stride, padding, rate = ([number] * 2 for number in geometry)
    how = stride, padding, rate, False, [0, 0], len(weight), [*wanted, False]
    by_x, by_weight, _ = torch.ops.aten.convolution_backward(dy, x, weight.to(x.dtype), None, *how)
    return by_x, by_weight


def _weight_gradient(x: Tensor, dy: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """torch's own, of the weight."""
    _, by_weight = _gradients(x, dy, weight, geometry, (False, True))
    assert by_weight is not None
    return by_weight.to(weight.dtype)


class _Strided(torch.autograd.Function):
    """A depthwise convolution in bfloat16 whose gradient is that of the one without the stride, zeros in between."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding, ctx.groups = stride, padding, groups
        shift = None if bias is None else bias.to(x.dtype)
        return F.conv2d(x, weight.to(x.dtype), shift, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        size = [side + 2 * p - k + 1 for side, p, k in zip(x.shape[2:], ctx.padding, weight.shape[2:], strict=True)]
        spread = torch.empty(len(x), len(weight), *size, dtype=x.dtype, memory_format=torch.channels_last).zero_()
        spread[:, :, :: ctx.stride[0], :: ctx.stride[1]] = gradients[0]
        plainly = [len(weight)], [1, 1], list(ctx.padding), [1, 1], False, [0, 0], ctx.groups
        wanted = ctx.needs_input_grad[:3]
        found = torch.ops.aten.convolution_backward(spread, x, weight.to(x.dtype), *plainly, wanted)
        return *found, None, None, None


class _Interleaved(torch.autograd.Function):
    """A dilated convolution by its sub-grids, whose gradient is written out to keep channels-last memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, rate: int) -> Tensor:
        parts = _split(x, rate)
        ctx.save_for_backward(parts, weight)
        ctx.rate, ctx.size = rate, x.shape[-2:]
        out = F.conv2d(parts, weight.to(x.dtype), padding=weight.shape[-1] // 2, groups=len(weight))
        return _merged(out, rate, ctx.size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        parts, weight = ctx.saved_tensors
        plainly = [1, 1], [weight.shape[-1] // 2] * 2, [1, 1], False, [0, 0], len(weight)
        by_parts, by_weight, _ = torch.ops.aten.convolution_backward(
            _split(gradients[0], ctx.rate), parts, weight.to(parts.dtype), None, *plainly, [True, True, False]
        )
        return _merged(by_parts, ctx.rate, ctx.size), by_weight, None


def _split(x: Tensor, rate: int) -> Tensor:
    """[B, c, h, w] -> [rate * rate * B, c, ceil(h / rate), ceil(w / rate)], each cell with those `rate` apart."""
    height, width = x.shape[-2:]
    x = F.pad(x, (0, -width % rate, 0, -height % rate))  # zeros, as the convolution's own padding
    parts = x.permute(0, 2, 3, 1).unflatten(2, (-1, rate)).unflatten(1, (-1, rate))  # [B, h/r, r, w/r, r, c]
    return parts.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def _merged(parts: Tensor, rate: int, size: tuple[int, int]) -> Tensor:
    """What `_split` took apart, [B, c, h, w]."""
    whole = parts.permute(0, 2, 3, 1).unflatten(0, (rate, rate, -1))  # [r, r, B, h/r, w/r, c]
    whole = whole.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2)  # [B, h, w, c]
    return whole[:, : size[0], : size[1]].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
