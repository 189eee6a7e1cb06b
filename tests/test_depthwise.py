"""A GPU's kernels of dilated depthwise convolutions, beside torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from interpreted import runs_interpreted

from alseg_pixelpick.convolutions import _Direct, has_kernels

CASES = [(2, 5, 9, 7, 3, 2), (1, 48, 23, 30, 3, 4), (3, 70, 6, 5, 5, 2), (2, 3, 4, 4, 3, 6)]


def differences(case: tuple[int, ...], dtype: torch.dtype, device: str) -> list[float]:
    """How far output and gradients are from torch's in float64, as shares of these."""
    batch, channels, height, width, side, rate = case
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).to(dtype).to(memory_format=torch.channels_last).to(device)
    weight, gradient = torch.randn(channels, 1, side, side, device=device), torch.randn_like(x)
    results = []
    for exact in (False, True):
        kind = torch.float64 if exact else dtype
        given = x.to(kind).clone(memory_format=torch.preserve_format).requires_grad_()
        by = (weight.double() if exact else weight.clone()).requires_grad_()
        if exact:
            out = F.conv2d(given, by, padding=rate * (side // 2), dilation=rate, groups=channels)
        else:
            out = _Direct.apply(given, by, rate)
        out.backward(gradient.to(kind))
        results.append([part.detach().double() for part in (out, given.grad, by.grad)])
    return [float((a - b).norm() / b.norm()) for a, b in zip(*results, strict=True)]


def check_all(device: str) -> None:
    """Every case in both precisions."""
    for case in CASES:
        for dtype, within in ((torch.float32, 1e-5), (torch.bfloat16, 1e-2)):
            found = differences(case, dtype, device)
            assert max(found) < within, (case, dtype, found)


def test_the_kernels_give_what_torch_gives():
    runs_interpreted("test_depthwise")


def test_where_triton_cannot_compile_torch_does_it():
    assert not has_kernels(torch.device("cpu"))
