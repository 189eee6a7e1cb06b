"""Augmentation: pixels and points move together, as torch, Pillow and torchvision define the changes."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from alseg.engine import warping
from alseg.engine.augment import DRAWS, FLIP, LEFT, SCALE, TOP, Geometry, draw_geometry, draws_of
from alseg.engine.warping import warp
from alseg.grid import resize_images

few = settings(max_examples=40, deadline=None, database=None, derandomize=True)
ALMOST_ONE = 1 - 2.0**-53


@st.composite
def geometries(draw, longest: int = 24) -> Geometry:
    """Any crop that `draw_geometry` may give and more: scales below and above 1, padding, flips."""
    side = st.integers(1, longest)
    source, scaled, crop = ((draw(side), draw(side)) for _ in range(3))
    top, left = (draw(st.integers(0, max(0, s - c))) for s, c in zip(scaled, crop, strict=True))
    return Geometry(source, scaled, crop, top, left, draw(st.booleans()))


def random_image(size: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, *size)).astype(np.uint8))


def cropped(padded: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The crop of a scaled map [..., H, W] that is padded far enough, mirrored where asked."""
    height, width = geometry.crop
    part = padded[..., geometry.top : geometry.top + height, geometry.left : geometry.left + width]
    return part[..., ::-1] if geometry.flip else part


def padded(scaled: np.ndarray, geometry: Geometry, fill: object) -> np.ndarray:
    height, width = (max(s, c) for s, c in zip(geometry.scaled, geometry.crop, strict=True))
    whole = np.empty((*scaled.shape[:-2], height, width), scaled.dtype)
    whole[...] = np.reshape(fill, (-1, 1, 1)) if scaled.ndim == 3 else fill
    whole[..., : scaled.shape[-2], : scaled.shape[-1]] = scaled
    return whole


@few
@given(geometry=geometries(), seed=st.integers(0, 99))
def test_warp_is_resize_pad_crop_flip(geometry: Geometry, seed: int):
    assume(geometry.source[1] > 1)  # torch 2.15 goes wrong with a single column
    image, fill = random_image(geometry.source, seed), torch.tensor([0.1, 0.5, 0.9])
    scaled = F.interpolate(
        (image[None].double() / 255).contiguous(memory_format=torch.channels_last),
        geometry.scaled,
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )[0]
    expected = cropped(padded(scaled.numpy(), geometry, fill.numpy()), geometry)
    np.testing.assert_allclose(warp(image[None], [geometry], fill)[0].numpy(), expected, atol=1e-5)


BLOBS = [(50, 60), (61, 47), (55.5, 70.25)]
PLACES = [
    Geometry((120, 120), (120, 120), (120, 120), 0, 0, False),
    Geometry((120, 120), (120, 120), (120, 120), 0, 0, True),
    Geometry((120, 120), (60, 75), (90, 90), 0, 0, False),
    Geometry((120, 120), (60, 75), (90, 90), 0, 0, True),
    Geometry((120, 120), (83, 97), (60, 80), 11, 6, True),
    Geometry((120, 120), (240, 240), (150, 140), 57, 63, False),
    Geometry((120, 120), (211, 187), (150, 140), 45, 30, True),
    Geometry((120, 120), (37, 41), (30, 35), 3, 2, True),
]


@pytest.mark.parametrize("place", BLOBS)
@pytest.mark.parametrize("geometry", PLACES, ids=str)
def test_points_land_where_their_pixels_do(geometry: Geometry, place: tuple[float, float]):
    y, x = np.mgrid[:120, :120]
    blob = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / (2 * 3.0**2))
    image = torch.from_numpy(np.round(255 * blob).astype(np.uint8)).expand(3, -1, -1)
    warped = warp(image[None], [geometry], torch.zeros(3))[0, 0].double().numpy()
    centre = np.array(ndimage.center_of_mass(warped)) + 0.5
    points, kept = geometry.exact(np.array([place]))
    assert kept.tolist() == [0]
    # the centre of mass before, for it is rounded to bytes; what is left is the triangle's own ripple
    np.testing.assert_allclose(points[0], centre, atol=0.02)


def test_one_bright_pixel_grown_three_times():
    image = torch.zeros(3, 9, 11, dtype=torch.uint8)
    image[:, 4, 7] = 255
    for flip in (False, True):
        geometry = Geometry((9, 11), (27, 33), (20, 25), 5, 8, flip)
        warped = warp(image[None], [geometry], torch.zeros(3))[0, 0]
        row, column = divmod(int(warped.argmax()), 25)
        points, _ = geometry.exact(np.array([[4, 7]]))
        assert points.tolist() == [[row + 0.5, column + 0.5]]


@few
@given(geometry=geometries())
def test_exact_keeps_what_stays_in_the_crop(geometry: Geometry):
    pixels = np.stack(np.mgrid[: geometry.source[0], : geometry.source[1]], -1).reshape(-1, 2)
    lands, stays, edge = [], [], []
    for place, pixel in enumerate(pixels.tolist()):
        moved = [
            Fraction(2 * at + 1, 2) * scaled / source - start
            for at, source, scaled, start in zip(
                pixel, geometry.source, geometry.scaled, (geometry.top, geometry.left), strict=True
            )
        ]
        inside = all(0 <= at < side for at, side in zip(moved, geometry.crop, strict=True))
        # rounding may put a point that lies on the crop's very edge on either side
        edge += [place] if any(at in (0, side) for at, side in zip(moved, geometry.crop, strict=True)) else []
        if inside:
            stays.append(place)
            lands.append([float(moved[0]), float(geometry.crop[1] - moved[1] if geometry.flip else moved[1])])
    points, kept = geometry.exact(pixels)
    assert set(kept.tolist()) ^ set(stays) <= set(edge)
    where = dict(zip(kept.tolist(), points.tolist(), strict=True))
    for place, land in zip(stays, lands, strict=True):
        if place not in edge:
            np.testing.assert_allclose(where[place], land, atol=1e-9)


def test_exact_loses_nothing_when_nothing_is_cropped():
    pixels = np.stack(np.mgrid[:13, :17], -1).reshape(-1, 2)
    for scaled, flip in product([(6, 8), (13, 17), (26, 34)], (False, True)):
        points, kept = Geometry((13, 17), scaled, (26, 34), 0, 0, flip).exact(pixels)
        assert kept.tolist() == list(range(13 * 17))
        assert len(np.unique(points, axis=0)) == 13 * 17


@pytest.mark.parametrize("how", ["exact", "nearest"])
def test_no_points_give_no_points(how: str):
    points, kept = getattr(Geometry((5, 5), (8, 8), (6, 6), 1, 1, True), how)(np.zeros((0, 2), np.int64))
    assert points.shape == (0, 2)
    assert kept.shape == (0,)


def painted(geometry: Geometry, pixels: np.ndarray) -> np.ndarray:
    """The crop's label map from `nearest`: 1 + the label's number, 0 where there is none."""
    points, owners = geometry.nearest(pixels)
    crop = np.zeros(geometry.crop, np.int32)
    cells = np.floor(points).astype(int)
    assert np.array_equal(points, cells + 0.5)
    for (row, column), owner in zip(cells, owners, strict=True):
        assert crop[row, column] == 0, "one pixel of the crop shows two labels"
        crop[row, column] = owner + 1
    return crop


def sparse_labels(geometry: Geometry, seed: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Some labelled pixels, and the label map that holds 1 + their number."""
    labelled = np.argwhere(np.random.default_rng(seed).random(geometry.source) < share)
    dense = np.zeros(geometry.source, np.int32)
    dense[labelled[:, 0], labelled[:, 1]] = np.arange(len(labelled)) + 1
    return labelled, dense


def nearest_source(size: int, scaled: int) -> list[int]:
    return [int(Fraction(2 * i + 1, 2) * size / scaled) for i in range(scaled)]


@few
@given(geometry=geometries(), seed=st.integers(0, 99), share=st.sampled_from([0.05, 0.5, 1.0]))
def test_nearest_is_the_resized_label_map(geometry: Geometry, seed: int, share: float):
    for source, scaled in zip(geometry.source, geometry.scaled, strict=True):
        # where a centre falls on the seam of two pixels, Pillow's floats choose one of them
        assume(all((2 * i + 1) * source % (2 * scaled) for i in range(scaled)))
    labelled, dense = sparse_labels(geometry, seed, share)
    rows, columns = (nearest_source(*pair) for pair in zip(geometry.source, geometry.scaled, strict=True))
    expected = cropped(padded(dense[rows][:, columns], geometry, 0), geometry)
    assert np.array_equal(painted(geometry, labelled), expected)


@few
@given(geometry=geometries(longest=60), seed=st.integers(0, 99))
def test_nearest_is_what_pillow_does(geometry: Geometry, seed: int):
    labelled, dense = sparse_labels(geometry, seed, 0.5)
    height, width = geometry.scaled
    resized = np.array(Image.fromarray(dense).resize((width, height), Image.Resampling.NEAREST))
    assert np.array_equal(painted(geometry, labelled), cropped(padded(resized, geometry, 0), geometry))


def test_nearest_at_half_and_double_size_loses_three_in_four_and_writes_four():
    labelled = np.stack(np.mgrid[:20, :20], -1).reshape(-1, 2)
    half = Geometry((20, 20), (10, 10), (20, 20), 0, 0, False).nearest(labelled)[1]
    double = Geometry((20, 20), (40, 40), (40, 40), 0, 0, False).nearest(labelled)[1]
    assert len(half) == len(set(half.tolist())) == 400 // 4
    assert set(Counter(double.tolist()).values()) == {4}
    assert len(set(double.tolist())) == 400


def draws_with(**places: float) -> list[float]:
    draws = [0.5] * DRAWS
    names = {"scale": SCALE, "top": TOP, "left": LEFT, "flip": FLIP}
    for name, value in places.items():
        draws[names[name]] = value
    return draws


uniform = st.floats(0, ALMOST_ONE)


@few
@given(
    scale=uniform,
    top=uniform,
    left=uniform,
    flip=uniform,
    source=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_a_drawn_crop_lies_in_the_scaled_image_or_holds_it(
    scale: float, top: float, left: float, flip: float, source: tuple[int, int], crop: tuple[int, int]
):
    draws = draws_with(scale=scale, top=top, left=left, flip=flip)
    geometry = draw_geometry(draws, source, crop, (0.5, 2.0), 0.5)
    assert (geometry.source, geometry.crop) == (source, crop)
    assert geometry.flip == (flip < 0.5)
    for scaled, side, start in zip(geometry.scaled, crop, (geometry.top, geometry.left), strict=True):
        assert max(1, side // 2) <= scaled <= 2 * side
        assert abs(scaled - side * (0.5 + 1.5 * scale)) <= 1
        assert 0 <= start <= max(0, scaled - side)


def test_every_offset_is_as_likely():
    steps = (np.arange(600) + 0.5) / 600
    tops = Counter(draw_geometry(draws_with(scale=0.5, top=u), (40, 40), (20, 20), (1, 1.5), 0).top for u in steps)
    lefts = Counter(draw_geometry(draws_with(scale=0.5, left=u), (40, 40), (20, 20), (1, 1.5), 0).left for u in steps)
    assert tops == lefts == dict.fromkeys(range(6), 100)


@pytest.mark.parametrize(("flip", "flipped"), [(0.0, 0), (0.25, 25), (1.0, 100)])
def test_the_chance_of_a_flip(flip: float, flipped: int):
    steps = np.arange(100) / 100
    assert sum(draw_geometry(draws_with(flip=u), (9, 9), (9, 9), (1, 1), flip).flip for u in steps) == flipped


def test_draws_belong_to_image_epoch_round_and_seed():
    together = draws_of(0, 1, 2, ["a", "b"])
    assert [len(row) for row in together] == [DRAWS, DRAWS]
    assert draws_of(0, 1, 2, ["b"]) == together[1:]
    others = [draws_of(1, 1, 2, ["a"]), draws_of(0, 2, 2, ["a"]), draws_of(0, 1, 3, ["a"]), together[1:]]
    assert all(other[0] != together[0] for other in others)


def test_a_batch_is_warped_as_its_images_are():
    kinds = [((20, 30), 3, 0, False), ((41, 17), 0, 2, True), ((9, 9), 0, 0, True)]
    shapes = [Geometry((12, 10), scaled, (16, 14), top, left, flip) for scaled, top, left, flip in kinds]
    images, fill = torch.stack([random_image((12, 10), seed) for seed in range(3)]), torch.tensor([0.1, 0.5, 0.9])
    each = [warp(image[None], [geometry], fill)[0] for image, geometry in zip(images, shapes, strict=True)]
    torch.testing.assert_close(warp(images, shapes, fill), torch.stack(each))
    torch.testing.assert_close(warping._whole(images, shapes, fill), torch.stack(each))


@few
@given(geometry=geometries(), seed=st.integers(0, 99), block=st.integers(1, 7))
def test_blocks_of_weights_give_what_whole_matrices_do(geometry: Geometry, seed: int, block: int):
    image, fill = random_image(geometry.source, seed), torch.tensor([0.1, 0.5, 0.9])
    before, warping.BLOCK = warping.BLOCK, block
    try:
        found = warp([image], [geometry], fill)
    finally:
        warping.BLOCK = before
    torch.testing.assert_close(found, warping._whole(image[None], [geometry], fill), rtol=0, atol=2e-6)


def test_an_image_of_its_own_size_stays_as_it_is_bit_for_bit():
    image = random_image((100, 70), 0)
    crop = warp([image], [Geometry((100, 70), (100, 70), (100, 70), 0, 0, False)], torch.zeros(3))[0]
    assert torch.equal(crop, resize_images(image[None], (100, 70))[0])  # as features that are kept are found by it


@pytest.mark.parametrize("scaled", [(110, 95), (333, 1200)])
def test_a_photograph_is_warped_by_the_rows_that_are_seen(scaled: tuple[int, int]):
    image, fill = random_image((777, 903), 1), torch.zeros(3)
    geometry = Geometry((777, 903), scaled, (100, 120), max(0, scaled[0] - 130), max(0, scaled[1] - 140), True)
    decoded = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # as files are
    for seen in (image, decoded):
        found = warp([seen], [geometry], fill)
        torch.testing.assert_close(found, warping._whole(image[None], [geometry], fill), rtol=0, atol=2e-6)
