"""Batch norms in training on a GPU, each with the activation after it, in fewer kernels than torch's own.

A step of a small network on a large GPU is a thousand short kernels, of which a batch norm and its activation take ten
for each layer; here they are four.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from alseg.engine.attempts import has_triton, tried

Bounds = tuple[float, float]  # to which an activation clamps

ACTIVATIONS: dict[type, Bounds] = {nn.Identity: (-inf, inf), nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


class _Normed(torch.autograd.Function):
    """`norm_kernels` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, bounds: Bounds) -> Tensor:
        from alseg.engine import norm_kernels

        y, mean, rate = norm_kernels.forward(x, norm, *bounds)
        ctx.save_for_backward(x, weight, bias, mean, rate)
        ctx.norm, ctx.bounds = norm, bounds
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from alseg.engine import norm_kernels

        x, weight, bias, mean, rate = ctx.saved_tensors
        found = norm_kernels.backward(x, gradients[0], ctx.norm, (mean, rate, weight, bias), *ctx.bounds)
        return *found, None, None


def fusible(model: nn.Module) -> dict[nn.BatchNorm2d, Bounds]:
    """A model's batch norms that can be computed with the activation that is part of them, and what that clamps to."""
    found: dict[nn.BatchNorm2d, Bounds] = {}
    for module in model.modules():
        activation: type = nn.Identity
        if type(module) is BatchNormAct2d and type(module.drop) is nn.Identity:
            activation = type(module.act)
        elif type(module) is not nn.BatchNorm2d:
            continue
        assert isinstance(module, nn.BatchNorm2d)
        whole = module.affine and module.track_running_stats and module.running_mean is not None
        if whole and activation in ACTIVATIONS and "forward" not in vars(module):
            found[module] = ACTIVATIONS[activation]
    return found


def normed(norm: nn.BatchNorm2d, bounds: Bounds, x: Tensor) -> Tensor:
    """The norm's own forward pass in training mode, by the kernels where they fit."""
    return _Normed.apply(x, norm.weight, norm.bias, norm, bounds) if _fits(norm, x) else type(norm).forward(norm, x)


def _fits(norm: nn.BatchNorm2d, x: Tensor) -> bool:
    fits = (
        *(norm.training, torch.is_grad_enabled(), norm.momentum is not None, norm.weight.dtype == torch.float32),
        *(x.ndim == 4, x.dtype in (torch.float32, torch.bfloat16), x.numel() // x.shape[1] > 1, x.numel() < 2**31),
    )
    return all(fits) and x.is_contiguous(memory_format=torch.channels_last)


def in_sequence(block: nn.Sequential, norms: dict[nn.BatchNorm2d, Bounds], x: Any) -> Any:
    """A sequence's own forward pass, its norms fused with the activations after them where nobody looks in between."""
    layers: list[Any] = list(block)
    place = 0
    while place < len(layers):
        layer, after = layers[place], layers[place + 1] if place + 1 < len(layers) else None
        place += 1
        pair = after is not None and type(after) in ACTIVATIONS and type(layer) is nn.BatchNorm2d and layer in norms
        if pair and not (_watched(layer) or _watched(after)) and _fits(layer, x):
            x = _Normed.apply(x, layer.weight, layer.bias, layer, ACTIVATIONS[type(after)])
            place += 1
        else:
            x = layer(x)
    return x


def _watched(module: Any) -> bool:
    """Whether somebody sees its calls, or it has a forward pass of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or ("forward" in vars(module) and type(module) is not nn.BatchNorm2d)


def sequences(model: nn.Module, norms: dict[nn.BatchNorm2d, Bounds]) -> list[nn.Sequential]:
    """A model's plain sequences in which one of these norms is."""
    if not norms:
        return []
    found = [module for module in model.modules() if type(module) is nn.Sequential and "forward" not in vars(module)]
    return [block for block in found if any(layer in norms for layer in block)]


@contextlib.contextmanager
def fused(norms: dict[nn.BatchNorm2d, Bounds], blocks: Sequence[nn.Sequential] = ()) -> Iterator[None]:
    """These norms, alone and in these sequences, are computed by the kernels inside, and by torch after it."""
    try:
        for norm, bounds in norms.items():
            norm.forward = partial(normed, norm, bounds)  # type: ignore[method-assign]
        for block in blocks:
            block.forward = partial(in_sequence, block, norms)  # type: ignore[method-assign]
        yield
    finally:
        for module in (*norms, *blocks):
            vars(module).pop("forward", None)


def fusible_here(
    model: nn.Module, device: torch.device, precision: torch.dtype, wanted: bool, say: Callable[[str], None]
) -> dict[nn.BatchNorm2d, Bounds]:
    """The norms to be fused on a device: none but on a GPU where Triton works, and `say` is told where it does not."""
    norms = fusible(model) if wanted and has_triton(device) else {}
    if not norms:
        return {}

    def attempt() -> None:
        norm = nn.BatchNorm2d(16, device=device)
        # ones, not draws: torch's generator is a run's own
        x = torch.ones(2, 16, 4, 4, device=device, dtype=precision).contiguous(memory_format=torch.channels_last)
        normed(norm, (0.0, 6.0), x.requires_grad_()).sum().backward()

    reason = tried(attempt)
    if reason is not None:
        say(f"Batch norms are computed by torch, not by Triton, which is faster: {reason}")
        return {}
    return norms
