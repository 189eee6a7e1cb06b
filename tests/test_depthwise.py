"""A GPU's kernels of depthwise convolutions, beside torch's own."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from interpreted import runs_interpreted

from alseg.engine.depthwise import Geometry, _Direct, has_kernels

# batch, channels, rows, columns, side of the kernel, stride, padding, dilation
CASES = [
    *((2, 5, 9, 7, 3, 1, 1, 1), (1, 24, 11, 14, 3, 1, 4, 4), (1, 20, 6, 5, 5, 1, 4, 2), (2, 3, 4, 4, 3, 1, 6, 6)),
    *((1, 24, 9, 8, 3, 2, 1, 1), (2, 40, 8, 11, 3, 2, 0, 1), (1, 20, 5, 5, 5, 2, 2, 1), (1, 8, 9, 8, 7, 2, 3, 1)),
    *((1, 17, 7, 6, 7, 1, 3, 1), (1, 16, 3, 2, 3, 2, 2, 1), (1, 32, 20, 21, 3, 1, 0, 1), (1, 4, 1, 1, 5, 2, 5, 1)),
]
STRIDED = {"stride": 2, "padding": 1, "groups": 8}


def differences(case: tuple[int, ...], dtype: torch.dtype, device: str) -> list[float]:
    """How far output and gradients are from torch's in float64, as shares of these."""
    batch, channels, height, width, side, stride, padding, rate = case
    torch.manual_seed(0)
    x = torch.randn(batch, channels, height, width).to(dtype).to(memory_format=torch.channels_last).to(device)
    weight, results, gradient = torch.randn(channels, 1, side, side, device=device), [], None
    for exact in (True, False):
        kind = torch.float64 if exact else dtype
        given = x.to(kind).clone(memory_format=torch.preserve_format).requires_grad_()
        by = (weight.double() if exact else weight.clone()).requires_grad_()
        if exact:
            out = F.conv2d(given, by, None, stride, padding, rate, channels)
            gradient = torch.randn_like(out).to(dtype)
        else:
            out = _Direct.apply(given, by, Geometry(stride, padding, rate))
        out.backward(gradient.to(kind))
        results.append([part.detach().double() for part in (out, given.grad, by.grad)])
    return [float((a - b).norm() / b.norm()) for b, a in zip(*results, strict=True)]


def check_all(device: str) -> None:
    """Every case, by so many programs as on a GPU and by few, which go on to further blocks."""
    from alseg.engine import depthwise_kernels

    torch.backends.cudnn.allow_tf32 = False  # larger weights' gradients are torch's
    tiles_of = depthwise_kernels.tiles_of
    for case in CASES:
        found = differences(case, torch.bfloat16, device)
        assert max(found) < 1e-2, (case, found)
        try:
            depthwise_kernels.tiles_of = lambda *given, **how: tiles_of(*given, **how)._replace(programs=2)
            found = differences(case, torch.float32, device)
        finally:
            depthwise_kernels.tiles_of = tiles_of
        assert max(found) < 1e-5, (case, found)
    few = depthwise_kernels.FEW_PARTS
    try:
        depthwise_kernels.FEW_PARTS = 2  # of the weight's gradient: here there are more
        assert max(differences(CASES[0], torch.float32, device)) < 1e-5
    finally:
        depthwise_kernels.FEW_PARTS = few
    check_second(device)


def check_second(device: str) -> None:
    """A gradient of the gradient."""
    found, x, weight = [], torch.rand(1, 8, 6, 5, device=device), torch.rand(8, 1, 3, 3, device=device)
    for convolve in (lambda *given: _Direct.apply(*given, Geometry(2, 1, 1)), partial(F.conv2d, **STRIDED)):
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        (by_x,) = torch.autograd.grad(convolve(*inputs).square().sum(), inputs[0], create_graph=True)
        found.append(torch.autograd.grad(by_x.square().sum(), inputs))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)  # a GPU may multiply in TF32


@pytest.mark.slow  # interpreted, a dozen shapes take half a minute
def test_the_kernels_give_what_torch_gives():
    runs_interpreted("test_depthwise")


def test_where_triton_cannot_compile_torch_does_it():
    assert not has_kernels(torch.device("cpu"))
