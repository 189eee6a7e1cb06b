"""What the package registers: acquirers, selectors, oracles, models and the recipes of PixelPick.

Factories only: torch is imported inside them, so that listing the pieces does without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from alseg.hookspecs import hookimpl
from alseg.options import Between
from alseg_pixelpick import recipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from alseg.hookspecs import Register
    from alseg.protocols import Acquirer, Images, Model, Oracle, Selector, Term
    from alseg.values import Classes

Fraction = Annotated[float, Between(0, 1)]
Passes = Annotated[int, Between(2, 10000)]


def least_confidence() -> Acquirer:
    """1 - max_c p(c)."""
    from alseg_pixelpick import acquirers

    return acquirers.least_confidence


def margin() -> Acquirer:
    """Minus the gap between the two likeliest classes."""
    from alseg_pixelpick import acquirers

    return acquirers.Margin()


def entropy() -> Acquirer:
    """Entropy of the class probabilities in nats."""
    from alseg_pixelpick import acquirers

    return acquirers.entropy


def random() -> Acquirer:
    """A uniform draw that does not look at the model."""
    from alseg_pixelpick import acquirers

    return acquirers.random


def vote_entropy(passes: Passes = 20) -> Acquirer:
    """Entropy of the votes of dropout passes."""
    from alseg_pixelpick import committee

    return committee.VoteEntropy(passes)


def soft_vote(passes: Passes = 20) -> Acquirer:
    """Entropy of the mean probabilities of dropout passes."""
    from alseg_pixelpick import committee

    return committee.SoftVote(passes)


def bald(passes: Passes = 20) -> Acquirer:
    """How much dropout passes disagree: mutual information of class and weights."""
    from alseg_pixelpick import committee

    return committee.BALD(passes)


def variation_ratio(passes: Passes = 20) -> Acquirer:
    """The share of dropout passes that vote against the majority."""
    from alseg_pixelpick import committee

    return committee.VariationRatio(passes)


def predicted_loss() -> Acquirer:
    """The loss that the term learning-loss predicts of each pixel: give -o terms=learning-loss."""
    from alseg_pixelpick import learning_loss

    return learning_loss.predicted_loss


def power(
    acquirer: Acquirer,
    beta: Annotated[float, Between(1e-6, 1e6)] = 1.0,
    form: Literal["power", "softmax", "rank"] = "power",
) -> Acquirer:
    """Noise, so that the highest are drawn with odds that grow with utility (power, softmax or rank)."""
    from alseg_pixelpick import power

    return power.Power(acquirer, beta, form)


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


def balanced_random() -> Selector:
    """n candidates at random, balanced over the predicted class; utilities do not count."""
    from alseg_pixelpick import balanced

    return balanced.balanced_random


def diverse(top: Fraction = 0.05) -> Selector:
    """Of the share `top` of highest utility, n that the model sees as different (k-means++ on its embedding)."""
    from alseg_pixelpick import diverse

    return diverse.Diverse(top)


def stratified(selector: Selector, balanced: Fraction = 0.66) -> Selector:
    """A share of the picks divided equally among the predicted classes, the rest chosen freely."""
    from alseg.errors import UserMistake
    from alseg_pixelpick import balanced as by_class

    if hasattr(selector, "attend"):
        raise UserMistake("stratified: goes with a selector that chooses, not with one that lets somebody pick.")
    return by_class.Stratified(selector, balanced)


def simulated_picker() -> Selector:
    """A person who clicks where the model is wrong, simulated with the stored masks (the paper's section D)."""
    from alseg_pixelpick import picker

    return picker.SimulatedPicker()


def ground_truth(images: Images, classes: Classes) -> Oracle:
    """The stored mask's class."""
    from alseg_pixelpick import oracles

    return oracles.GroundTruth(images, classes)


def noisy(
    images: Images, classes: Classes, seed: int, chance: Fraction | None = None, confusion: Path | None = None
) -> Oracle:
    """The stored mask's class, wrong with a given chance (0.1), or as a confusion matrix (CSV) says."""
    from alseg.errors import UserMistake
    from alseg_pixelpick import noisy, oracles

    if confusion and chance is not None:
        raise UserMistake("A confusion matrix says how often the oracle noisy errs: leave out chance or confusion.")
    errors = 0.1 if chance is None else chance
    said = noisy.read_confusion(confusion, classes) if confusion else noisy.uniform_errors(errors, len(classes))
    return noisy.Noisy(oracles.GroundTruth(images, classes), classes, said, seed)


def deeplabv3plus(
    classes: int,
    encoder: str = "mobilenetv2_100",
    weights: Literal["default", "none"] | Path = "default",
    output_stride: Literal[8, 16, 32] = 16,
    channels: Annotated[int, Between(8, 4096)] = 256,
) -> Model:
    """DeepLabv3+ on any timm encoder; weights: default (timm's hub), none, or a file."""
    from alseg_pixelpick import deeplab, encoders

    made = encoders.Encoder(encoder, str(weights), output_stride, exactly=output_stride != 16)
    return deeplab.DeepLabV3Plus(made, classes, channels)


def fpn(
    classes: int,
    encoder: str = "resnet50",
    weights: Literal["default", "none"] | Path = "default",
    output_stride: Literal[8, 16, 32] = 8,
    channels: Annotated[int, Between(8, 4096)] = 128,
) -> Model:
    """A feature pyramid on any timm encoder; weights: default (timm's hub), none, or a file."""
    from alseg_pixelpick import encoders
    from alseg_pixelpick.fpn import FPN

    exactly = output_stride != 8
    return FPN(encoders.Encoder(encoder, str(weights), output_stride, encoders.last_four, exactly), classes, channels)


def ensemble(new_model: Callable[[], Model], members: Annotated[int, Between(2, 1000)] = 5) -> Model:
    """Several models from different first weights (a deep ensemble); its samples are its members."""
    from alseg_pixelpick.ensemble import Ensemble

    return Ensemble([new_model() for _ in range(members)])


def learning_loss(
    model: Model,
    weight: Annotated[float, Between(0, 1e6)] = 1.0,
    width: Annotated[int, Between(1, 4096)] = 64,
    margin: Annotated[float, Between(0, 1e6)] = 1.0,
    joint: Fraction = 0.6,
) -> Term:
    """A module that learns which points have a high loss (Yoo and Kweon, CVPR 2019)."""
    from alseg_pixelpick.learning_loss import LearningLoss

    return LearningLoss(model, width, weight, margin, joint)


@hookimpl
def register_acquirers(register: Register) -> None:
    """The paper's uncertainty measures, chance, disagreement, predicted loss, and noise on any of them."""
    register("least-confidence", least_confidence)
    register("margin", margin)
    register("entropy", entropy)
    register("random", random)
    register("vote-entropy", vote_entropy)
    register("soft-vote", soft_vote)
    register("bald", bald)
    register("variation-ratio", variation_ratio)
    register("learning-loss", predicted_loss)
    register("power", power)


@hookimpl
def register_selectors(register: Register) -> None:
    """Heuristics A and B and their relatives."""
    register("topk", topk)
    register("uniform", uniform)
    register("topk-then-uniform", topk_then_uniform)
    register("uniform-then-topk", uniform_then_topk)
    register("balanced-random", balanced_random)
    register("diverse", diverse)
    register("stratified", stratified)
    register("simulated-picker", simulated_picker)


@hookimpl
def register_oracles(register: Register) -> None:
    """The stored masks, and the same with errors."""
    register("ground-truth", ground_truth)
    register("noisy", noisy)


@hookimpl
def register_models(register: Register) -> None:
    """DeepLabv3+, FPN, and several of either."""
    register("deeplabv3plus", deeplabv3plus)
    register("fpn", fpn)
    register("ensemble", ensemble)


@hookimpl
def register_terms(register: Register) -> None:
    """What the acquirer learning-loss asks."""
    register("learning-loss", learning_loss)


@hookimpl
def register_recipes(register: Register) -> None:
    """The fallback and the paper's settings."""
    for name, recipe in recipes.RECIPES.items():
        register(name, recipe)
