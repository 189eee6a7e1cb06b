"""Batch norm and ReLU of patches whose statistics come from some of their positions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OVER = (0, 2, 3)  # what a norm's statistics are taken over


def normalised(x: Tensor, counted: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """The norm in training mode of float32 patches [B, c, r, r], with ReLU; its running statistics move along.

    counted: [B, 1, r, r], 1 where a position is one of those that the statistics are of, else 0.
    """
    count = counted.sum()
    share = counted / count
    if torch._C._are_functorch_transforms_active():  # which know no functions of ours
        y, mean, variance = _plain(x, share, norm.weight, norm.bias, norm.eps)
    else:
        y, mean, variance = _Normalised.apply(x, share, norm.weight, norm.bias, norm.eps)
    _track(norm, mean, variance, count)
    return y


def _plain(x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = (x * share).sum(OVER)
    centred = x - mean[:, None, None]
    variance = (centred.square() * share).sum(OVER)
    scale = weight * torch.rsqrt(variance + eps)
    return F.relu(torch.addcmul(bias[:, None, None], centred, scale[:, None, None])), mean, variance


class _Normalised(torch.autograd.Function):
    """`_plain` with its gradient in a third of the operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, variance = _plain(x, share, weight, bias, eps)
        ctx.save_for_backward(x, share, weight, bias, y, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        ctx.set_materialize_grads(False)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if gradients[0] is None:
            return None, None, None, None, None
        x, share, weight, bias, y, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated, too
            again, *_ = _plain(x, share, weight, bias, ctx.eps)
            wanted = [part for part in (x, weight, bias) if part.requires_grad]
            found = iter(torch.autograd.grad(again, wanted, gradients[0], create_graph=True))
            by_x, by_weight, by_bias = (next(found) if part.requires_grad else None for part in (x, weight, bias))
            return by_x, None, by_weight, by_bias, None
        passed = torch.ops.aten.threshold_backward(gradients[0], y, 0)
        centred, rate = x - mean[:, None, None], torch.rsqrt(variance + ctx.eps)
        by_bias = passed.sum(OVER)
        by_weight = (passed * centred).sum(OVER) * rate
        # a position moves the mean and the variance as much as it counts
        moved = torch.addcmul(by_bias[:, None, None], centred, (by_weight * rate)[:, None, None])
        by_x = torch.addcmul(passed, moved, share, value=-1) * (weight * rate)[:, None, None]
        return by_x, None, by_weight, by_bias, None


@torch.no_grad()
def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: Tensor) -> None:
    """Move the running statistics as the norm itself would."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    momentum = 0.1 if norm.momentum is None else norm.momentum
    unbiased = variance * (count / (count - 1).clamp(min=1))
    torch._foreach_lerp_([norm.running_mean, norm.running_var], [mean, unbiased], momentum)
