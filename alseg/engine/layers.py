"""torch's own layers in training, where they take more time than they must; what they give is the same.

- hardtanh_, which ReLU6 in place is, copies its whole input for the backward pass, though its result shows where it
  clamped; in timm's blocks, where nothing writes into that afterwards.
- Depthwise convolutions and, on a CPU, dilated ones and in float32 those of many channels, which have modules of their
  own.
- On a CPU, a draw by Bernoulli for each number of a map takes four times as long as sixteen random bits that are
  compared with the rate, which is met to a part in 65536.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from torch import Tensor, nn

from alseg.engine import depthwise, dilated, winograd

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
            module.forward = partial(_taken, way, module)
        yield
    finally:
        for module in ways:
            vars(module).pop("forward", None)


def _way(module: Any) -> Way | None:
    """How a layer is computed, if it is one of those."""
    if type(module) is nn.Dropout and not module.inplace:
        return _dropped
    if dilated.is_dilated(module) and module.weight.device.type == "cpu":  # a GPU's are left to `casts`
        return dilated.convolved
    if winograd.fits(module) and module.weight.device.type == "cpu":
        return winograd.convolved
    return depthwise.convolved if depthwise.is_depthwise(module) else None


def _taken(way: Way, module: Any, x: Tensor) -> Tensor:
    """A layer's output, for a plain tensor by the faster way; within torch.func only torch's own layers work."""
    plain = type(x) is Tensor and not x.is_nested and not torch._C._are_functorch_transforms_active()
    return way(module, x) if plain else type(module).forward(module, x)


def _clamped(module: Any, x: Tensor) -> Tensor:
    seen = x.is_leaf or x._is_view() or module._forward_hooks
    if x.requires_grad and torch.is_grad_enabled() and not seen:
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
    plain = x.device.type != "cpu" or not x.is_floating_point() or not 0 < threshold < WORDS
    if not module.training or plain:
        return type(module).forward(module, x)
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:count]
    laid = torch.empty_like(x, device="meta")  # as x lies in memory, if it is dense there
    kept = words.as_strided(laid.shape, laid.stride()) >= threshold - WORDS // 2
    return x * (kept.to(x.dtype) / (1 - threshold / WORDS))
