"""What an acquirer must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from alseg.calling import described
from alseg.engine.checks import checked_acquirer
from alseg.engine.device import seeded
from alseg.errors import AlsegError
from alseg.options import Between
from alseg.plugins import Registry
from alseg.protocols import Acquirer
from alseg.testing import batches
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Inapplicable, Report, require
from alseg.testing.pools import pool_batch
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.values import PoolBatch

TOLERANCE = 1e-5


@dataclass(frozen=True)
class OfAcquirer:
    """An acquirer, how many classes its batches have, and whether it is a measure of uncertainty."""

    subject: Subject
    classes: int
    uncertainty: bool

    def new(self) -> Acquirer:
        """A fresh one."""
        return built(self.subject)

    def utility(self, batch: PoolBatch, acquirer: Acquirer | None = None) -> Tensor:
        """A fresh one's, or this one's, checked as a run does."""
        try:
            with torch.no_grad():
                return checked_acquirer(acquirer or self.new(), "it")(batch)
        except AlsegError as error:
            raise (error if error.__cause__ is None else error.__cause__) from None


CONTRACT: Contract[OfAcquirer] = Contract("acquirer")


@explains_wrong_calls
def check_acquirer(
    acquirer: What,
    options: Mapping[str, Any] | None = None,
    *,
    uncertainty: bool = True,
    classes: Annotated[int, Between(2)] = 4,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check an acquirer by the factory that is registered, or by its name; raises ContractError.

    uncertainty: whether it measures how unsure the model is; False for others, such as a random draw. classes: how
    many the model knows in the checks.
    """
    subject = subject_of("acquirer", acquirer, options, name=name, around=around, registry=registry)
    return CONTRACT.judge(OfAcquirer(subject, classes, uncertainty), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfAcquirer) -> None:
    """The factory gives something that can be called with a batch."""
    made = of.new()
    require(
        callable(made),
        f"the factory gave {described(made)}, which cannot be called",
        "return a function of the batch, or an object with __call__(batch)",
    )


@CONTRACT.check("result", basic=True)
def _result(of: OfAcquirer) -> None:
    """Utilities are a float tensor [B, H, W] on the batch's device, finite everywhere."""
    with torch.no_grad():
        found = of.new()(batches.three_images(of.classes))
    wanted = [3, *batches.SIZE]
    require(isinstance(found, Tensor), f"it gave {described(found)}, not a tensor {wanted}", "return a torch tensor")
    require(
        list(found.shape) == wanted,
        f"it gave {described(found)}; expected float [B, H, W], here {wanted}",
        _mend_of_shape(list(found.shape), wanted),
    )
    require(
        found.is_floating_point(),
        f"it gave {described(found)}; expected a floating type",
        "end with .float()",
    )
    require(
        found.device == torch.device("cpu"),
        f"it gave a tensor on {found.device} for a batch on cpu",
        "make tensors with device=batch.candidates.device",
    )
    _require_finite(found, batches.KEYS, "with ordinary probabilities", "look for a division by 0 or a logarithm of 0")


def _mend_of_shape(given: list[int], wanted: list[int]) -> str:
    mend = "give one utility for each pixel of each image"
    if len(given) == 4:
        return f"{mend}: reduce over the classes, dimension 1"
    if len(given) != 3:
        return mend
    if given[0] != wanted[0]:
        return f"{mend}: keep dimension 0, the images"
    return f"{mend}: the map has the size of the image, batch.size, so pad what a filter takes off the borders"


def _require_finite(utility: Tensor, keys: tuple[str, ...], where: str, mend: str) -> None:
    unfit = ~utility.isfinite()
    for i, key in enumerate(keys):
        if bool(unfit[i].any()):
            what = "NaN" if bool(utility[i].isnan().any()) else "infinite"
            raise Broken(f"utility of image {key!r} is {what} {where}", mend)


@CONTRACT.check("inputs")
def _inputs(of: OfAcquirer) -> None:
    """Candidates and the prediction's maps are as they were afterwards."""
    batch = batches.three_images(of.classes)
    with torch.no_grad():
        batches.require_untouched(lambda: of.new()(batch), batches.seen(batch))


@CONTRACT.check("extremes")
def _extremes(of: OfAcquirer) -> None:
    """Utilities are finite where a probability is exactly 0 or 1, and where all classes are alike."""
    batch = batches.extremes(of.classes)
    with torch.no_grad():
        found = of.new()(batch)
    mend = "clamp before log, or use torch.special.entr"
    _require_finite(found[:2], batch.keys[:2], "where a probability is exactly 0", mend)
    _require_finite(found[2:], batch.keys[2:], "where all classes are alike", "look for a division by a difference")


@CONTRACT.check("no-candidates")
def _no_candidates(of: OfAcquirer) -> None:
    """An image of one pixel, of which nothing may be asked any more, has a finite utility all the same."""
    found = of.utility(batches.one_pixel(of.classes))
    require(found.shape == (1, 1, 1), f"it gave {described(found)} for an image of 1x1", "take sizes from batch.size")


@CONTRACT.check("uncertainty")
def _uncertainty(of: OfAcquirer) -> None:
    """Where all classes are alike utility is at least as high as where one is certain: higher = ask first."""
    if not of.uncertainty:
        raise Inapplicable("it is no measure of uncertainty")
    p = torch.zeros(1, of.classes, 8, 16)
    p[:, 0], p[:, :, :, 8:] = 1, 1 / of.classes
    found = of.utility(pool_batch(p)).double()[0]
    certain, flat = float(found[:, :8].mean()), float(found[:, 8:].mean())
    require(
        flat >= certain,
        f"utility is {certain:.4g} where one class is certain and {flat:.4g} where all are alike; higher = ask first",
        "turn its sign, or give uncertainty=False if it measures something else",
    )


@CONTRACT.check("same-seed")
def _same_seed(of: OfAcquirer) -> None:
    """Two that are built alike give the same for the same batch, whatever torch's generator."""
    found = []
    for seed in (1, 2):
        with seeded(torch.device("cpu"), seed, 0, "checks"):
            found.append(of.utility(batches.three_images(of.classes)))
    require(
        torch.equal(*found),
        "it gave two utilities for the same batch",
        "draw from batch.noise('a purpose of your own'), which follows from seed, round, image and pixel",
    )


@CONTRACT.check("same-again")
def _same_again(of: OfAcquirer) -> None:
    """Asked again it gives the same for the same batch: what it saw before changes nothing."""
    acquirer, batch = of.new(), batches.three_images(of.classes)
    found = [of.utility(batch, acquirer) for _ in range(2)]
    require(
        torch.equal(*found),
        "it gave another utility when the same batch came again",
        "keep nothing from call to call: images come in any order, and their utilities are compared",
    )


@CONTRACT.check("batch-size")
def _batch_size(of: OfAcquirer) -> None:
    """An image's utilities do not depend on what is in the batch beside it."""
    together = of.utility(batches.three_images(of.classes)).double()
    for i, key in enumerate(batches.KEYS):
        alone = of.utility(batches.three_images(of.classes, only=i)).double()[0]
        require(
            torch.allclose(alone, together[i], rtol=TOLERANCE, atol=TOLERANCE),
            f"utility of image {key!r} differs by {float((alone - together[i]).abs().max()):.3g} where others are in "
            "its batch",
            "normalise and rank over dimensions 1 and 2 of each image, never over the batch",
        )


@CONTRACT.check("device")
def _device(of: OfAcquirer) -> None:
    """Nothing is made on another device than the batch's; followed where there is no GPU as far as torch can."""
    acquirer = of.new()
    found = batches.on_a_gpu(acquirer, of.classes)
    require(
        found.device.type == "cuda",
        f"it gave a tensor on {found.device} for a batch on a GPU",
        "make tensors with device=batch.candidates.device",
    )
