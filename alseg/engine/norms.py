"""Batch norms in training on a GPU, each with the activation after it, in fewer kernels than torch's own.

A step of a small network on a large GPU is a thousand short kernels, of which a batch norm and its activation take ten
for each layer; here they are six.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

PLAIN, RELU, RELU6 = range(3)  # as in norm_kernels, which can be imported only where Triton is
ACTIVATIONS = {nn.Identity: PLAIN, nn.ReLU: RELU, nn.ReLU6: RELU6}


class _Normed(torch.autograd.Function):
    """`norm_kernels` with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, act: int) -> Tensor:
        from alseg.engine import norm_kernels

        y, mean, rate = norm_kernels.forward(x, norm, act)
        ctx.save_for_backward(x, weight, bias, mean, rate)
        ctx.act = act
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from alseg.engine import norm_kernels

        x, weight, bias, mean, rate = ctx.saved_tensors
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        return *norm_kernels.backward(x, dy, mean, rate, weight, bias, ctx.act), None, None


def fusible(model: nn.Module) -> dict[nn.BatchNorm2d, int]:
    """A model's batch norms that can be computed with the activation that is part of them, and which that is."""
    found: dict[nn.BatchNorm2d, int] = {}
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


def normed(norm: nn.BatchNorm2d, act: int, x: Tensor) -> Tensor:
    """The norm's own forward pass in training mode, by the kernels where they fit."""
    fits = (
        *(norm.training, torch.is_grad_enabled(), norm.momentum is not None, norm.weight.dtype == torch.float32),
        *(x.ndim == 4, x.dtype in (torch.float32, torch.bfloat16), x.numel() // x.shape[1] > 1, x.numel() < 2**31),
    )
    if all(fits) and x.is_contiguous(memory_format=torch.channels_last):
        return _Normed.apply(x, norm.weight, norm.bias, norm, act)
    return type(norm).forward(norm, x)


@contextlib.contextmanager
def fused(norms: dict[nn.BatchNorm2d, int]) -> Iterator[None]:
    """These norms are computed by the kernels inside, and by torch after it."""
    try:
        for norm, act in norms.items():
            norm.forward = partial(normed, norm, act)  # type: ignore[method-assign]
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def fused_norms(
    model: nn.Module, device: torch.device, wanted: bool, say: Callable[[str], None]
) -> dict[nn.BatchNorm2d, int]:
    """The norms to be fused on a device: none but on a GPU where Triton works, and `say` is told where it does not."""
    if not wanted or device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return {}
    norms = fusible(model)
    if not norms:
        return {}
    try:  # what Triton compiles needs a C compiler, among other things
        norm = nn.BatchNorm2d(16, device=device)
        x = torch.ones(2, 16, 4, 4, device=device).contiguous(memory_format=torch.channels_last).requires_grad_()
        normed(norm, RELU6, x).sum().backward()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(f"Batch norms are computed by torch, not by Triton, which is faster: {reason}")
        return {}
    return norms
