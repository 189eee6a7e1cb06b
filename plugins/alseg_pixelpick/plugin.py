"""What the package registers: acquirers, selectors, the oracle, the model and the recipes of PixelPick.

Factories only: torch is imported inside them, so that listing the pieces does without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from alseg.hookspecs import hookimpl
from alseg.options import Between
from alseg_pixelpick import recipes

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Acquirer, Images, Model, Oracle, Selector
    from alseg.values import Classes

Fraction = Annotated[float, Between(0, 1)]


def least_confidence() -> Acquirer:
    """1 - max_c p(c)."""
    from alseg_pixelpick import acquirers

    return acquirers.least_confidence


def margin() -> Acquirer:
    """Minus the gap between the two likeliest classes."""
    from alseg_pixelpick import acquirers

    return acquirers.margin


def entropy() -> Acquirer:
    """Entropy of the class probabilities in nats."""
    from alseg_pixelpick import acquirers

    return acquirers.entropy


def random() -> Acquirer:
    """A uniform draw that does not look at the model."""
    from alseg_pixelpick import acquirers

    return acquirers.random


def topk() -> Selector:
    """The n pixels of highest utility."""
    from alseg_pixelpick import selectors

    return selectors.topk


def uniform() -> Selector:
    """n candidates uniformly, whatever their utility."""
    from alseg_pixelpick import selectors

    return selectors.uniform


def topk_then_uniform(top: Fraction = 0.05) -> Selector:
    """The paper's heuristic B: of the share `top` of highest utility, n uniformly."""
    from alseg_pixelpick import selectors

    return selectors.TopkThenUniform(top)


def uniform_then_topk(share: Fraction = 0.05) -> Selector:
    """Heuristic A (Yoo and Kweon, CVPR 2019): of a uniform share of the candidates, the n highest."""
    from alseg_pixelpick import selectors

    return selectors.UniformThenTopk(share)


def ground_truth(images: Images, classes: Classes) -> Oracle:
    """The stored mask's class."""
    from alseg_pixelpick import oracles

    return oracles.GroundTruth(images, classes)


def deeplabv3plus(
    classes: int,
    encoder: str = "mobilenetv2_100",
    weights: Literal["default", "none"] | Path = "default",
    output_stride: Literal[8, 16, 32] = 16,
    channels: Annotated[int, Between(8, 4096)] = 256,
) -> Model:
    """DeepLabv3+ on any timm encoder; weights: default (timm's hub), none, or a file."""
    from alseg_pixelpick import deeplab, encoders

    return deeplab.DeepLabV3Plus(encoders.Encoder(encoder, str(weights), output_stride), classes, channels)


@hookimpl
def register_acquirers(register: Register) -> None:
    """The paper's three uncertainty measures and chance."""
    register("least-confidence", least_confidence)
    register("margin", margin)
    register("entropy", entropy)
    register("random", random)


@hookimpl
def register_selectors(register: Register) -> None:
    """Heuristics A and B and their plain relatives."""
    register("topk", topk)
    register("uniform", uniform)
    register("topk-then-uniform", topk_then_uniform)
    register("uniform-then-topk", uniform_then_topk)


@hookimpl
def register_oracles(register: Register) -> None:
    """The stored masks."""
    register("ground-truth", ground_truth)


@hookimpl
def register_models(register: Register) -> None:
    """DeepLabv3+."""
    register("deeplabv3plus", deeplabv3plus)


@hookimpl
def register_recipes(register: Register) -> None:
    """The fallback and the paper's settings."""
    for name, recipe in recipes.RECIPES.items():
        register(name, recipe)
