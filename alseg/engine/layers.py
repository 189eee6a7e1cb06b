"""torch's own layers in training, where they take more time than they must; what they give is the same.

- hardtanh_, which ReLU6 in place is, copies its whole input for the backward pass, though its result shows where it
  clamped; in timm's blocks, where nothing writes into that afterwards.
- On a CPU, the gradient of a depthwise convolution with a stride is slow in bfloat16, and that of the same one without
  a stride is not.
- On a CPU, a draw by Bernoulli for each number of a map takes four times as long as sixteen random bits that are
  compared with the rate, which is met to a part in 65536.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

WORDS = 2**16  # that two bytes tell apart
# timm's blocks, and those of their norms after whose activation a convolution comes
BLOCKS: dict[type, tuple[str, ...]] = {InvertedResidual: ("bn1", "bn2"), DepthwiseSeparableConv: ("bn1",)}

Way = Callable[[Any, Tensor], Tensor]  # a layer's forward pass


def ways_of(model: nn.Module) -> dict[nn.Module, Way]:
    """Those of a model's layers that can be computed the faster way, and how."""
    found: dict[nn.Module, Way] = {}
    for module in model.modules():
        if "forward" not in vars(module) and (way := _way(module)):
            found[module] = way
        for name in BLOCKS.get(type(module), ()):
            activation = getattr(getattr(module, name), "act", None)
            if type(activation) is nn.ReLU6 and activation.inplace and "forward" not in vars(activation):
                found[activation] = _clamped
    return found


@contextlib.contextmanager
def quickened(ways: dict[nn.Module, Way]) -> Iterator[None]:
    """The layers are computed the faster way inside, where it fits what they are given."""
    try:
        for module, way in ways.items():
            module.forward = partial(way, module)
        yield
    finally:
        for module in ways:
            vars(module).pop("forward", None)


def _way(module: Any) -> Way | None:
    """How a layer is computed, if it is one of those."""
    kind = type(module)
    if kind is nn.Dropout and not module.inplace:
        return _dropped
    if kind is nn.Conv2d and 1 < module.groups == module.in_channels and module.stride != (1, 1):
        plain = module.dilation == (1, 1) and module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return _convolved if plain else None
    return None


def _transformed(x: Tensor) -> bool:
    """Whether it is no plain tensor, or one of torch.func's: there only torch's own layers work."""
    return type(x) is not Tensor or x.is_nested or torch._C._are_functorch_transforms_active()


def _clamped(module: Any, x: Tensor) -> Tensor:
    plain = x.is_leaf or x._is_view() or module._forward_hooks or _transformed(x)
    if x.requires_grad and torch.is_grad_enabled() and not plain:
        return _Clamped.apply(x, module.min_val, module.max_val)
    return type(module).forward(module, x)


class _Clamped(torch.autograd.Function):
    """`x` clamped in place, with the gradient that torch's hardtanh has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(x.clamp_(low, high))
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return torch.ops.aten.hardtanh_backward(gradients[0], ctx.saved_tensors[0], *ctx.bounds), None, None


def _dropped(module: Any, x: Tensor) -> Tensor:
    threshold, count = round(module.p * WORDS), x.numel()
    plain = x.device.type != "cpu" or not x.is_floating_point() or not 0 < threshold < WORDS or _transformed(x)
    if not module.training or plain:
        return type(module).forward(module, x)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    laid = torch.empty_like(x, device="meta")  # as x lies in memory, if it is dense there
    kept = words.as_strided(laid.shape, laid.stride()) >= threshold - WORDS // 2
    return x * (kept.to(x.dtype) / (1 - threshold / WORDS))


def _convolved(module: Any, x: Tensor) -> Tensor:
    lower = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    half = x.dtype == torch.bfloat16 or (lower and x.dtype == torch.float32)
    if x.device.type != "cpu" or x.dim() != 4 or not half or not torch.is_grad_enabled() or _transformed(x):
        return type(module).forward(module, x)
    how = module.stride, module.padding, module.groups
    return _Strided.apply(x.to(torch.bfloat16), module.weight, module.bias, *how)


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
