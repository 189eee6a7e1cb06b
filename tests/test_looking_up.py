"""The cells of maps around points looked up by a GPU's kernels, beside torch's own."""

from __future__ import annotations

import torch
from interpreted import runs_interpreted

from alseg.grid import sample
from alseg_pixelpick.looking_up import _LookedUp, cells_at

# batch, channels, size, points an image
CASES = [(2, 5, (6, 7), 9), (1, 70, (3, 4), 40), (2, 16, (1, 5), 6), (1, 3, (4, 1), 1), (1, 4, (1, 1), 3)]
BORDER = [[0.0, 0.0], [1.0, 1.0], [-0.3, 0.5], [1.4, 2.0], [0.5, 0.5], [0.0, 0.0]]


def material(case: tuple, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps, and points of which some lie at and beyond the border and some share cells."""
    batch, channels, size, count = case
    torch.manual_seed(0)
    points = torch.cat([torch.tensor(BORDER).expand(batch, -1, -1), torch.rand(batch, count, 2)], 1)[:, :count]
    return torch.randn(batch, channels, *size).to(device).to(memory_format=torch.channels_last), points.to(device)


def check(case: tuple, dtype: torch.dtype, device: str, within: float) -> None:
    maps, points = material(case, device)
    results = []
    for exact in (False, True):
        given = maps.to(dtype).to(torch.float64 if exact else dtype).detach().requires_grad_()
        found, weights = cells_at(given, points) if exact else _LookedUp.apply(given, points)
        assert not weights.requires_grad
        torch.manual_seed(1)
        found.backward(torch.randn(found.shape).to(dtype).to(found))
        results.append((found.detach(), given.grad, (found.detach().double() * weights[..., None]).sum(2)))
    assert results[0][0].dtype == results[0][1].dtype == dtype
    assert results[0][1].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(results[0][0].double(), results[1][0])
    for found, wanted in zip(results[0][1:], results[1][1:], strict=True):
        assert float((found.double() - wanted).norm() / wanted.norm()) < within, (case, dtype)


def check_all(device: str) -> None:
    """Every case in each precision."""
    for case in CASES:
        for dtype, within in ((torch.float32, 1e-5), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)):
            check(case, dtype, device, within)


def test_the_kernels_give_what_torch_gives():
    runs_interpreted("test_looking_up")


def test_weighed_cells_are_the_sampled_map():
    for case in CASES:
        maps, points = material(case, "cpu")
        found, weights = cells_at(maps, points)
        torch.testing.assert_close((found * weights[..., None]).sum(2).mT, sample(maps, points))
