"""Colours of training images: jitter as torchvision's, blur as scipy's."""

from __future__ import annotations

import colorsys
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as TV
import torchvision.transforms.v2.functional as TVF
from scipy import ndimage

from alseg.engine import colour
from alseg.engine.augment import DRAWS
from alseg.engine.colour import BLUR, BRIGHTNESS, CONTRAST, GRAY, HUE, JITTER, ORDER, SATURATION, SIGMA, turn_hue
from alseg.settings import Augmentation

ALMOST_ONE = 1 - 2.0**-53
STILL = Augmentation(jitter=0, grayscale=0, blur=0)
GREY = (0.2989, 0.587, 0.114)


def recolour(image: torch.Tensor, draws: list[float], change: Augmentation) -> torch.Tensor:
    return colour.recolour(image[None], [draws], change)[0]


def colour_draws(**draws: float) -> list[float]:
    """Numbers with which jitter happens where allowed, brightness first; grayscale and blur too."""
    values = [0.0] * DRAWS
    names = {"brightness": BRIGHTNESS, "contrast": CONTRAST, "saturation": SATURATION, "hue": HUE}
    names |= {"order": ORDER, "sigma": SIGMA, "jitter": JITTER, "gray": GRAY, "blur": BLUR}
    for name, value in draws.items():
        values[names[name]] = value
    return values


def only(**strengths: float) -> Augmentation:
    none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    return replace(STILL, jitter=1, **(none | strengths))


def photo(seed: int = 0, size: tuple[int, int] = (31, 42)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((3, *size)).astype(np.float32))


def recoloured(image: np.ndarray, kind: str, factor: float) -> np.ndarray:
    """One change of a float image [3, H, W], as torchvision's ColorJitter describes it."""
    grey = np.tensordot(GREY, image, 1)
    if kind == "hue":
        moved = [colorsys.rgb_to_hsv(*pixel) for pixel in image.reshape(3, -1).T]
        back = [colorsys.hsv_to_rgb((h + factor) % 1, s, v) for h, s, v in moved]
        return np.array(back).T.reshape(image.shape)
    other = {"brightness": 0.0, "contrast": grey.mean(), "saturation": grey}[kind]
    return np.clip(factor * image + (1 - factor) * other, 0, 1)


@pytest.mark.parametrize("draw", [0.0, 0.999])
def test_nothing_changes_with_all_chances_zero(draw: float):
    image = photo()
    assert torch.equal(recolour(image, [draw] * DRAWS, STILL), image)
    assert torch.equal(recolour(image, [draw] * DRAWS, only()), image)


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.5, ALMOST_ONE])
@pytest.mark.parametrize(
    ("kind", "strength"),
    [("brightness", 0.8), ("brightness", 1.7), ("contrast", 0.8), ("saturation", 0.1), ("saturation", 3), ("hue", 0.2)],
)
def test_factors_are_uniform_in_torchvisions_range(kind: str, strength: float, draw: float):
    low, high = getattr(TV.ColorJitter(**{kind: strength}), kind)
    image = photo(1)
    changed = recolour(image, colour_draws(**{kind: draw}), only(**{kind: strength}))
    expected = recoloured(image.double().numpy(), kind, low + draw * (high - low))
    np.testing.assert_allclose(changed.numpy(), expected, atol=2e-5)


def test_every_order_of_the_four_changes_occurs_once_in_24():
    strengths = {"brightness": 0.8, "contrast": 0.6, "saturation": 0.7, "hue": 0.2}
    # strong enough to clip, for otherwise some of them commute
    draws = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.95, "hue": 0.8}
    image = photo(2, (6, 7))
    factors = {name: 1 - s + draws[name] * 2 * s for name, s in strengths.items()}
    factors["hue"] = (2 * draws["hue"] - 1) * strengths["hue"]
    expected = []
    for order in permutations(strengths):
        changed = image.double().numpy()
        for kind in order:
            changed = recoloured(changed, kind, factors[kind])
        expected.append(changed)
    found = [recolour(image, colour_draws(order=(i + 0.5) / 24, **draws), only(**strengths)) for i in range(24)]
    matches = [[np.allclose(f.numpy(), e, atol=3e-5) for e in expected] for f in found]
    assert np.array_equal(np.sort(np.argmax(matches, 1)), np.arange(24))
    assert np.sum(matches) == 24


@pytest.mark.parametrize(
    ("setting", "draw"), [("jitter", "jitter"), ("grayscale", "gray"), ("blur", "blur")], ids=lambda name: name
)
def test_the_chance_of_each_change(setting: str, draw: str):
    change = replace(STILL, brightness=0.8, contrast=0, saturation=0, hue=0, **{setting: 0.2})
    image = photo(3)
    happens = [
        not torch.equal(recolour(image, colour_draws(sigma=0.9, **{draw: u}), change), image)
        for u in np.arange(10) / 10
    ]
    assert happens == [True, True] + [False] * 8


def test_grayscale_is_luminance_three_times():
    image = photo(4)
    grey = recolour(image, colour_draws(), replace(STILL, grayscale=1)).numpy()
    np.testing.assert_allclose(grey, np.tensordot(GREY, image.numpy(), 1)[None].repeat(3, 0), atol=1e-5)


@pytest.mark.parametrize(("size", "radius"), [((31, 42), 1), ((50, 64), 2), ((64, 50), 2), ((79, 90), 3)])
@pytest.mark.parametrize(("draw", "sigma"), [(0.0, 0.1), (0.5, 1.05), (ALMOST_ONE, 2.0)])
def test_blur_is_gaussian_over_a_tenth_of_the_shorter_side(
    size: tuple[int, int], radius: int, draw: float, sigma: float
):
    image = photo(5, size)
    blurred = recolour(image, colour_draws(sigma=draw), replace(STILL, blur=1, blur_sigma=(0.1, 2.0)))
    expected = ndimage.gaussian_filter(
        image.double().numpy(), (0, sigma, sigma), mode="mirror", radius=(0, radius, radius)
    )
    np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 30), (1, 1)])
def test_an_image_too_small_to_blur_stays(size: tuple[int, int]):
    assert torch.equal(recolour(photo(6, size), colour_draws(), replace(STILL, blur=1)), photo(6, size))


def test_a_batch_is_coloured_as_its_images_are():
    images, change = torch.stack([photo(seed) for seed in range(4)]), Augmentation()
    draws = np.random.default_rng(3).random((4, DRAWS)).tolist()
    for row, blurred in enumerate((0.2, 0.9, 0.1, 0.9)):
        draws[row][BLUR] = blurred
    each = [recolour(image, drawn, change) for image, drawn in zip(images, draws, strict=True)]
    torch.testing.assert_close(colour.recolour(images, draws, change), torch.stack(each))
    assert torch.equal(images[0], photo(0)), "the input is not written to"


@pytest.mark.parametrize(
    "change", [Augmentation(), replace(STILL, jitter=1, hue=0), replace(STILL, grayscale=0.5), STILL]
)
def test_images_that_are_coloured_together_are_coloured_each_on_its_own(change):
    images = torch.stack([photo(seed) for seed in range(32)])
    draws = np.random.default_rng(4).random((32, DRAWS)).tolist()
    each = [recolour(image, drawn, replace(change, blur=0)) for image, drawn in zip(images, draws, strict=True)]
    torch.testing.assert_close(colour.jittered_together(images, draws, change), torch.stack(each), atol=1e-5, rtol=0)
    assert torch.equal(images[5], photo(5)), "the input is not written to"


@pytest.mark.parametrize("turn", [-0.5, -0.13, 0.0, 0.2, 0.5])
def test_hue_is_torchvisions_for_grey_black_and_pure_colours_too(turn):
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0])
    image = torch.cartesian_prod(levels, levels, levels).T.reshape(3, 8, 8).contiguous()
    torch.testing.assert_close(turn_hue(image, turn), TVF.adjust_hue(image, turn), atol=1e-5, rtol=0)
