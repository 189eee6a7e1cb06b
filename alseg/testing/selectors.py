"""What a selector must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from alseg import noise
from alseg.calling import described
from alseg.engine.checks import MENDS, checked_selector
from alseg.engine.device import seeded
from alseg.errors import AlsegError
from alseg.options import Between
from alseg.plugins import Registry
from alseg.protocols import Selector
from alseg.testing import batches
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Inapplicable, Report, require
from alseg.testing.open_rounds import require_attends
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.values import PoolBatch, Selection

N = 5


@dataclass(frozen=True)
class OfSelector:
    """A selector, and how many classes its batches have."""

    subject: Subject
    classes: int

    def new(self) -> Selector:
        """A fresh one."""
        return built(self.subject)

    def batch(self, only: int | None = None) -> PoolBatch:
        """Three images or one of them."""
        return batches.three_images(self.classes, only=only)

    def choice(self, batch: PoolBatch, utility: Tensor, n: int = N, made: Any = None) -> Selection:
        """A fresh one's, or this one's, checked as a run does; Inapplicable where somebody picks."""
        made = self.new() if made is None else made
        if hasattr(made, "attend"):
            raise Inapplicable("somebody picks where a whole round is open")
        try:
            with torch.no_grad():
                return checked_selector(made, "it")(batch, utility, n)
        except AlsegError as error:
            if error.__cause__ is not None:  # of the selector's own
                raise error.__cause__ from None
            found = str(error).rstrip(".")
            mend = next((mend for words, mend in MENDS.items() if words in found), None)
            if mend is None:
                raise
            raise Broken(found.removesuffix(f": {mend}"), mend) from error


CONTRACT: Contract[OfSelector] = Contract("selector")


@explains_wrong_calls
def check_selector(
    selector: What,
    options: Mapping[str, Any] | None = None,
    *,
    classes: Annotated[int, Between(2)] = 4,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a selector by the factory that is registered, or by its name; raises ContractError.

    classes: how many the model knows in the checks.
    """
    subject = subject_of("selector", selector, options, name=name, around=around, registry=registry)
    return CONTRACT.judge(OfSelector(subject, classes), subject.name, skip)


def utility_of(batch: PoolBatch) -> Tensor:
    """A utility for each pixel, float32 [B, H, W], that follows from the image's key."""
    starts = [noise.stream(0, 0, "utility", key) for key in batch.keys]
    return noise.uniforms(starts, batch.size[0] * batch.size[1]).float().unflatten(1, batch.size)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfSelector) -> None:
    """The factory gives something that can be called with a batch, utilities and n."""
    made = of.new()
    require(
        callable(made) or hasattr(made, "attend"),
        f"the factory gave {described(made)}, which cannot be called",
        "return a function of batch, utility and n, or an object with __call__(batch, utility, n)",
    )


@CONTRACT.check("result", basic=True)
def _result(of: OfSelector) -> None:
    """A Selection of at most n distinct candidates of each image, int64 [B, n], on the batch's device."""
    if hasattr(of.new(), "attend"):
        return
    batch = of.batch()
    batch.candidates[2] = batch.candidates[0]
    found = of.choice(batch, utility_of(batch))
    counts = (found.indices >= 0).sum(1).tolist()
    require(
        counts[0] > 0,
        f"it chose {counts} pixels of images with {batch.candidates.flatten(1).sum(1).tolist()} candidates, n = {N}",
        "choose min(n, candidates) of each image",
    )


@CONTRACT.check("attend")
def _attend(of: OfSelector) -> None:
    """One that lets somebody pick takes an open round, and returns at once where nobody is waited for."""
    made = of.new()
    if not hasattr(made, "attend"):
        raise Inapplicable("it chooses by itself")
    require_attends(made, picks=True, asks_class=False)


@CONTRACT.check("padding")
def _padding(of: OfSelector) -> None:
    """Where an image has fewer candidates than n, or none, the rest of its row is -1, at the end."""
    batch = of.batch()
    batch.candidates[1] = False
    found = of.choice(batch, utility_of(batch))
    chosen = found.indices >= 0
    counts = chosen.sum(1).tolist()
    require(
        counts[1] == 0 and counts[2] <= 1,
        f"it chose {counts} pixels of images with {batch.candidates.flatten(1).sum(1).tolist()} candidates",
        "give -1 in place of what is missing",
    )
    require(
        bool((chosen[:, :-1] | ~chosen[:, 1:]).all()),
        f"a row has -1 before a pixel: {found.indices[2].tolist()}",
        "put the chosen pixels first, best first, and -1 after them",
    )


@CONTRACT.check("numbers")
def _numbers(of: OfSelector) -> None:
    """Any n is served: one pixel, and more than an image has, without a pixel twice."""
    for n in (1, batches.SIZE[0] * batches.SIZE[1] + 3):
        batch = of.batch()
        of.choice(batch, utility_of(batch), n)
    of.choice(batches.one_pixel(of.classes), torch.zeros(1, 1, 1), 2)


@CONTRACT.check("priority")
def _priority(of: OfSelector) -> None:
    """Each chosen pixel has a finite priority, to be compared with other images'."""
    batch = of.batch()
    found = of.choice(batch, utility_of(batch))
    chosen = found.indices >= 0
    require(
        bool(found.priority[chosen].isfinite().all()),
        f"a chosen pixel has the priority {found.priority[chosen & ~found.priority.isfinite()].tolist()[:1]}",
        "give what the pixel was chosen by, such as its utility or its draw; only padding may be infinite",
    )


@CONTRACT.check("utilities")
def _utilities(of: OfSelector) -> None:
    """Utilities of any floating type, any size and all alike are served."""
    for utility in (
        utility_of(of.batch()).double(),
        torch.zeros(3, *batches.SIZE),
        -1e30 * utility_of(of.batch()),
    ):
        found = of.choice(of.batch(), utility)
        require(
            int((found.indices[0] >= 0).sum()) > 0,
            f"it chose nothing with utilities {utility.dtype} from {float(utility.min()):g} to "
            f"{float(utility.max()):g}",
            "compare utilities with one another only, never with a number",
        )


@CONTRACT.check("inputs")
def _inputs(of: OfSelector) -> None:
    """Candidates, utilities and the prediction's maps are as they were afterwards."""
    made, batch = of.new(), of.batch()
    if hasattr(made, "attend"):
        raise Inapplicable("somebody picks where a whole round is open")
    utility = utility_of(batch)
    with torch.no_grad():
        batches.require_untouched(lambda: made(batch, utility, N), batches.seen(batch, {"utility": utility}))


@CONTRACT.check("candidates-only")
def _candidates_only(of: OfSelector) -> None:
    """Utilities of pixels that may not be asked change nothing."""
    batch = of.batch()
    utility = utility_of(batch)
    one = of.choice(batch, utility)
    for other in (1e6, -1e6):
        changed = of.choice(of.batch(), torch.where(batch.candidates, utility, other))
        require(
            torch.equal(one.indices, changed.indices),
            "its choice changes with the utilities of pixels that are no candidates",
            "leave them out before you rank or normalise: torch.where(batch.candidates, utility, -torch.inf)",
        )


@CONTRACT.check("same-seed")
def _same_seed(of: OfSelector) -> None:
    """Two that are built alike choose the same, whatever torch's generator."""
    batch = of.batch()
    found = []
    for seed in (1, 2):
        with seeded(torch.device("cpu"), seed, 0, "checks"):
            found.append(of.choice(batch, utility_of(batch)))
    require(
        torch.equal(found[0].indices, found[1].indices) and torch.equal(found[0].priority, found[1].priority),
        "it made two choices of the same batch",
        "draw from batch.noise('a purpose of your own'), which follows from seed, round, image and pixel",
    )


@CONTRACT.check("same-again")
def _same_again(of: OfSelector) -> None:
    """Asked again it chooses the same of the same batch: what it saw before changes nothing."""
    made, batch = of.new(), of.batch()
    found = [of.choice(batch, utility_of(batch), made=made).indices for _ in range(2)]
    require(
        torch.equal(*found),
        "it chose other pixels when the same batch came again",
        "keep nothing from call to call: images come in any order, and batch.labels says what was asked",
    )


@CONTRACT.check("batch-size")
def _batch_size(of: OfSelector) -> None:
    """What is chosen of an image does not depend on what is in the batch beside it."""
    batch = of.batch()
    together = of.choice(batch, utility_of(batch))
    for i, key in enumerate(batches.KEYS):
        alone = of.choice(of.batch(i), utility_of(of.batch(i)))
        one, other = (sorted(int(k) for k in row if k >= 0) for row in (alone.indices[0], together.indices[i]))
        require(
            one == other,
            f"it chooses {one} of image {key!r} alone and {other} where others are in its batch",
            "rank and draw within each image, never over the batch",
        )


@CONTRACT.check("device")
def _device(of: OfSelector) -> None:
    """Nothing is made on another device than the batch's; followed where there is no GPU as far as torch can."""
    made = of.new()
    if hasattr(made, "attend"):
        raise Inapplicable("somebody picks where a whole round is open")
    found = batches.on_a_gpu(
        lambda batch: made(batch, torch.zeros_like(batch.candidates, dtype=torch.float32), N), of.classes
    )
    require(
        found.indices.device.type == found.priority.device.type == "cuda",
        f"it gave indices on {found.indices.device} for a batch on a GPU",
        "make tensors with device=batch.candidates.device",
    )
