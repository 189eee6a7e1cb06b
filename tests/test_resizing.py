"""The decoder's inputs resized and joined by a GPU's kernels, beside torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from interpreted import runs_interpreted

from alseg_pixelpick.resizing import _Joined, has_kernels, joined

# batch, channels of the context and beside it, its size, the size of both
CASES = [
    (2, 5, 3, (3, 4), (10, 13)),
    (1, 80, 48, (3, 4), (11, 16)),
    (1, 16, 8, (7, 5), (8, 6)),
    (1, 3, 2, (1, 1), (4, 7)),
    (1, 4, 4, (2, 20), (2, 40)),
    (1, 2, 1, (4, 5), (4, 5)),
    (1, 2, 70, (2, 3), (16, 11)),
]


def plain(context: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    return torch.cat([F.interpolate(context, size=low.shape[2:], mode="bilinear", align_corners=False), low], 1)


def differences(case: tuple, dtype: torch.dtype, device: str) -> list[float]:
    """How far output and gradients are from torch's in float64, as shares of these."""
    batch, channels, others, small, size = case
    torch.manual_seed(0)
    maps = [torch.randn(batch, channels, *small), torch.randn(batch, others, *size)]
    maps = [each.to(device, dtype).to(memory_format=torch.channels_last) for each in maps]
    gradient = torch.randn(batch, channels + others, *size).to(device, dtype)
    results = []
    for exact in (False, True):
        kind = torch.float64 if exact else dtype
        given = [each.detach().to(kind).requires_grad_() for each in maps]
        out = plain(*given) if exact else _Joined.apply(*given)
        out.backward(gradient.to(kind))
        results.append([part.detach() for part in (out, *(each.grad for each in given))])
    assert all(part.is_contiguous(memory_format=torch.channels_last) for part in results[0])
    assert all(part.dtype == dtype for part in results[0])
    return [float((a.double() - b).norm() / b.norm()) for a, b in zip(*results, strict=True)]


def check_all(device: str) -> None:
    """Every case in each precision."""
    for case in CASES:
        for dtype, within in ((torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)):
            found = differences(case, dtype, device)
            assert max(found) < within, (case, dtype, found)


def test_the_kernels_give_what_torch_gives():
    runs_interpreted("test_resizing")


def test_elsewhere_torch_does_it():
    assert not has_kernels(torch.device("cpu"))
    context, low = torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 2, 9, 11)
    torch.testing.assert_close(joined(context, low), plain(context, low))
