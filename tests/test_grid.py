"""Between the image's grid and the model's, against bilinear interpolation in NumPy."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from alseg import grid
from alseg.grid import fractions, resize, resize_images, sample

few = settings(max_examples=30, deadline=None, database=None, derandomize=True)
TOLERANCE = 1e-4  # float32 positions of up to 120, logits of up to 12
side = st.integers(1, 9)
image_side = st.integers(1, 23)
SIZES = [
    ((4, 4), (16, 16)),
    ((5, 7), (17, 29)),
    ((1, 9), (4, 35)),
    ((9, 1), (35, 3)),
    ((1, 1), (6, 5)),
    ((8, 6), (3, 5)),
    ((6, 6), (6, 6)),
    ((23, 30), (90, 120)),
]


def bilinear_at(maps: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Maps [B, C, h, w] at continuous positions, cell centres at + 0.5, clamped at the border."""
    height, width = maps.shape[-2:]
    y, x = np.clip(y - 0.5, 0, height - 1), np.clip(x - 0.5, 0, width - 1)
    above, left = np.floor(y).astype(int), np.floor(x).astype(int)
    below, right = np.minimum(above + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = y - above, x - left
    upper = maps[..., above, left] * (1 - across) + maps[..., above, right] * across
    lower = maps[..., below, left] * (1 - across) + maps[..., below, right] * across
    return upper * (1 - down) + lower * down


def resized(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return bilinear_at(maps, y * maps.shape[-2] / size[0], x * maps.shape[-1] / size[1])


def random_maps(seed: int, cells: tuple[int, int], batch: int = 2, classes: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (batch, classes, *cells)).astype(np.float32))


def all_pixels(size: tuple[int, int]) -> torch.Tensor:
    y, x = np.mgrid[: size[0], : size[1]]
    return torch.from_numpy(np.stack([y.ravel(), x.ravel()], -1))


@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_resize_is_half_pixel_bilinear(cells: tuple[int, int], size: tuple[int, int]):
    maps = random_maps(0, cells)
    np.testing.assert_allclose(resize(maps, size).numpy(), resized(maps.double().numpy(), size), atol=TOLERANCE)


@few
@given(height=side, width=side, tall=image_side, wide=image_side, seed=st.integers(0, 999))
def test_resize_of_any_size(height: int, width: int, tall: int, wide: int, seed: int):
    maps = random_maps(seed, (height, width), batch=1, classes=2)
    expected = resized(maps.double().numpy(), (tall, wide))
    np.testing.assert_allclose(resize(maps, (tall, wide)).numpy(), expected, atol=TOLERANCE)


def samples_all_pixels(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    points = fractions(all_pixels(size), size).expand(len(maps), -1, -1)
    return sample(maps, points).unflatten(2, size)


@pytest.mark.parametrize(("cells", "size"), SIZES)
def test_a_sample_is_the_resized_map_at_that_pixel(cells: tuple[int, int], size: tuple[int, int]):
    maps = random_maps(1, cells)
    sampled = samples_all_pixels(maps, size)
    torch.testing.assert_close(sampled, resize(maps, size), atol=TOLERANCE, rtol=0)
    corners = sampled[..., [0, 0, -1, -1], [0, -1, 0, -1]].numpy()
    expected = resized(maps.double().numpy(), size)[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, expected, atol=TOLERANCE)


@few
@given(height=side, width=side, tall=image_side, wide=image_side, seed=st.integers(0, 999))
def test_a_sample_is_the_resized_map_at_any_size(height: int, width: int, tall: int, wide: int, seed: int):
    maps = random_maps(seed, (height, width))
    sampled = samples_all_pixels(maps, (tall, wide))
    torch.testing.assert_close(sampled, resize(maps, (tall, wide)), atol=TOLERANCE, rtol=0)


def test_points_of_each_image_are_its_own():
    maps = random_maps(2, (5, 6), batch=3)
    points = torch.rand(3, 7, 2, generator=torch.Generator().manual_seed(0))
    sampled = sample(maps, points)
    assert sampled.shape == (3, 3, 7)
    for i in range(3):
        y, x = (points[i].double().numpy() * (5, 6)).T
        np.testing.assert_allclose(sampled[i].numpy(), bilinear_at(maps[i].double().numpy(), y, x), atol=TOLERANCE)


def test_many_points_are_looked_up_in_parts(monkeypatch: pytest.MonkeyPatch):
    maps, points = random_maps(2, (5, 6)), torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(0))
    whole = sample(maps, points)
    monkeypatch.setattr("alseg.grid.MANY", 3)
    assert torch.equal(sample(maps, points), whole)


@pytest.mark.parametrize("cells", [(5, 7), (1, 4)])
def test_outside_counts_as_the_border(cells: tuple[int, int]):
    maps = random_maps(3, cells, batch=1)
    points = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-0.5, -3.0], [2.0, 1.5]]])
    corners = maps[0][:, [0, 0, -1, -1, 0, -1], [0, -1, 0, -1, 0, -1]]
    torch.testing.assert_close(sample(maps, points)[0], corners)


def test_a_pixel_is_a_point_at_its_centre():
    pixels = torch.tensor([[[0, 0], [3, 9]], [[1, 4], [2, 0]]])
    expected = [[[1 / 8, 1 / 20], [7 / 8, 19 / 20]], [[3 / 8, 9 / 20], [5 / 8, 1 / 20]]]
    torch.testing.assert_close(fractions(pixels, (4, 10)), torch.tensor(expected))


def test_sampling_has_the_gradient_of_resizing():
    sampled, whole = (random_maps(4, (4, 5)).requires_grad_() for _ in range(2))
    pixels = torch.tensor([[0, 0], [0, 16], [7, 3], [12, 16], [12, 0]])
    points = fractions(pixels, (13, 17)).expand(2, -1, -1)
    sample(sampled, points).square().sum().backward()
    resize(whole, (13, 17))[..., pixels[:, 0], pixels[:, 1]].square().sum().backward()
    torch.testing.assert_close(sampled.grad, whole.grad, atol=1e-3, rtol=1e-4)


def test_images_of_the_right_size_are_only_scaled_to_one():
    images = torch.randint(0, 256, (2, 3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(resize_images(images, (6, 8)).numpy(), images.numpy().astype(np.float32) / np.float32(255))


def test_growing_images_is_half_pixel_bilinear():
    images = torch.randint(0, 256, (1, 3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    expected = resized(images.double().numpy() / 255, (13, 17))
    np.testing.assert_allclose(resize_images(images, (13, 17)).numpy(), expected, atol=1e-5)


def test_shrinking_images_averages_with_a_triangle():
    row = np.random.default_rng(0).integers(0, 256, 12).astype(np.uint8)
    images = torch.from_numpy(np.broadcast_to(row, (1, 3, 4, 12)).copy())
    shrunk = resize_images(images, (4, 4))[0, 0, 0].numpy()
    for i, value in enumerate(shrunk):
        weights = np.clip(1 - abs((np.arange(12) + 0.5) - 3 * (i + 0.5)) / 3, 0, None)
        assert value == pytest.approx((weights * row).sum() / weights.sum() / 255, abs=1e-5)


def in_inference_mode(maps, points):
    with torch.inference_mode():
        sample(maps, points)


def within_torch_func(maps, points):
    torch.func.grad(lambda maps: sample(maps, points).sum())(maps)


def with_tensors_of_a_trace(maps, points):
    with FakeTensorMode(allow_non_fake_inputs=True):
        sample(maps, points)


def traced(maps, points):
    torch.jit.trace(sample, (maps, points), check_trace=True)


@pytest.mark.parametrize("before", [in_inference_mode, within_torch_func, with_tensors_of_a_trace, traced])
def test_what_is_kept_from_one_call_serves_every_other(before, monkeypatch):
    monkeypatch.setattr(grid, "KEPT", {})
    maps, points = torch.rand(2, 3, 5, 7), torch.rand(2, 4, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit's
        before(maps, points)
    maps.requires_grad_()
    found = sample(maps, points.clone().requires_grad_())  # whose gradient needs what the points are multiplied with
    assert type(found) is torch.Tensor and all(type(kept) is torch.Tensor for kept in grid.KEPT.values())
    assert not any(kept.is_inference() for kept in grid.KEPT.values()) and grid.KEPT
    found.sum().backward()
    assert maps.grad.sum() > 0
