"""Batch norms in training on a GPU, each with the activation after it, in fewer kernels than torch's own.

A step of a small network on a large GPU is a thousand short kernels, of which a batch norm and its activation take ten
for each layer; here they are six.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Bounds = tuple[float, float]  # to which an activation clamps

ACTIVATIONS: dict[type, Bounds] = {nn.Identity: (-inf, inf), nn.ReLU: (0.0, inf), nn.ReLU6: (0.0, 6.0)}


class _Normed(torch.autograd.Function):
    """`norm_kernels` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, bounds: Bounds) -> Tensor:
        from alseg.engine import norm_kernels

        y, mean, rate = norm_kernels.forward(x, norm, *bounds)
        ctx.save_for_backward(x, weight, bias, mean, rate)
        ctx.bounds = bounds
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from alseg.engine import norm_kernels

        x, weight, bias, mean, rate = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        return *norm_kernels.backward(x, dy, mean, rate, weight, bias, *ctx.bounds), None, None


class Fused(NamedTuple):
    """A batch norm's activation: what it clamps to, and the module after the norm that it is, if it is one."""

    bounds: Bounds
    after: nn.Module | None = None


def fusible(model: nn.Module) -> dict[nn.BatchNorm2d, Fused]:
    """A model's batch norms that can be computed with their activation: one that is part of them or follows them."""
    found: dict[nn.BatchNorm2d, Fused] = {}
    followers = _followers(model)
    for module in model.modules():
        activation: type = nn.Identity
        if type(module) is BatchNormAct2d and type(module.drop) is nn.Identity:
            activation = type(module.act)
        elif type(module) is not nn.BatchNorm2d:
            continue
        assert isinstance(module, nn.BatchNorm2d)
        whole = module.affine and module.track_running_stats and module.running_mean is not None
        if whole and activation in ACTIVATIONS and "forward" not in vars(module):
            after = followers.get(module) if type(module) is nn.BatchNorm2d else None
            found[module] = Fused(ACTIVATIONS[activation if after is None else type(after)], after)
    return found


def _followers(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Of batch norms in an nn.Sequential the activation after each, where both are there once and nobody listens."""
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    found = {}
    for block in places:
        if type(block) is not nn.Sequential or places[block] > 1:
            continue
        for norm, activation in pairwise(block):
            listened = any(module._forward_hooks or module._forward_pre_hooks for module in (norm, activation))
            if type(activation) in ACTIVATIONS and places[norm] == places[activation] == 1 and not listened:
                found[norm] = activation
    return found


def normed(norm: nn.BatchNorm2d, fused: Fused, x: Tensor) -> Tensor:
    """The norm's own forward pass in training mode and its activation's, by the kernels where they fit."""
    fits = (
        *(norm.training, torch.is_grad_enabled(), norm.momentum is not None, norm.weight.dtype == torch.float32),
        *(x.ndim == 4, x.dtype in (torch.float32, torch.bfloat16), x.numel() // x.shape[1] > 1, x.numel() < 2**31),
    )
    if all(fits) and x.is_contiguous(memory_format=torch.channels_last):
        y = _Normed.apply(x, norm.weight, norm.bias, norm, fused.bounds)
        if fused.after is not None:
            fused.after.forward = partial(_once_more, fused.after, y)
        return y
    return type(norm).forward(norm, x)


@contextlib.contextmanager
def fused(norms: dict[nn.BatchNorm2d, Fused]) -> Iterator[None]:
    """These norms are computed by the kernels inside, and by torch after it."""
    activations = [how.after for how in norms.values() if how.after is not None]
    try:
        for norm, how in norms.items():
            norm.forward = partial(normed, norm, how)  # type: ignore[method-assign]
        yield
    finally:
        for module in (*norms, *activations):  # an activation only where it was not called
            vars(module).pop("forward", None)


def _once_more(activation: nn.Module, y: Tensor, x: Tensor) -> Tensor:
    """An activation's forward pass after its norm has given `y`, to which it has been applied."""
    vars(activation).pop("forward")
    return x if x is y else type(activation).forward(activation, x)


def fusible_here(
    model: nn.Module, device: torch.device, precision: torch.dtype, wanted: bool, say: Callable[[str], None]
) -> dict[nn.BatchNorm2d, Fused]:
    """The norms to be fused on a device: none but on a GPU where Triton works, and `say` is told where it does not."""
    if not wanted or device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return {}
    norms = fusible(model)
    if not norms:
        return {}
    try:  # what Triton compiles needs a C compiler, among other things
        norm = nn.BatchNorm2d(16, device=device)
        # ones, not draws: torch's generator is a run's own
        x = torch.ones(2, 16, 4, 4, device=device, dtype=precision).contiguous(memory_format=torch.channels_last)
        normed(norm, Fused((0.0, 6.0)), x.requires_grad_()).sum().backward()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"Batch norms are computed by torch, not by Triton, which is faster: {reason}")
        return {}
    return norms
