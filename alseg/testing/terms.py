"""What a training term must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alseg import noise
from alseg.calling import described
from alseg.engine.batches import PADDING, Batch
from alseg.engine.device import mode, seeded
from alseg.engine.losses import Losses
from alseg.engine.terms import attach, term_called
from alseg.engine.train import loss_with_terms
from alseg.engine.weights import weights_of
from alseg.errors import AlsegError
from alseg.plugins import Registry
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Contract, Inapplicable, Report, require
from alseg.testing.models import CPU, tensors_in
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.testing.tiny_models import TinyModel

CLASSES = 3
NAME = "checked"


@dataclass(frozen=True)
class OfTerm:
    """A term, and the model that it is trained with."""

    subject: Subject
    model: Subject | None

    def new(self) -> tuple[Any, Any]:
        """A fresh model, and a fresh term in it."""
        with seeded(CPU, 0, 0, "initial weights"):
            model = TinyModel(CLASSES) if self.model is None else built(self.model, classes=CLASSES)
            term = built(self.subject, model=model, classes=CLASSES)
        attach(model, {NAME: term})
        return model, term

    def loss(self, batch: Batch, model: Any, term: Any) -> Tensor:
        """The loss of a training step with the term, on a batch."""
        with seeded(CPU, 0, 0, "training"):
            return loss_with_terms(model, batch, False, [term])


CONTRACT: Contract[OfTerm] = Contract("term")


@explains_wrong_calls
def check_term(
    term: What,
    options: Mapping[str, Any] | None = None,
    *,
    model: What | None = None,
    model_options: Mapping[str, Any] | None = None,
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a training term by the factory that is registered, or by its name; raises ContractError.

    model: a factory or name of the model that it is trained with; None: the tiny one.
    """
    subject = subject_of("term", term, options, name=name, around=around, registry=registry)
    beside = None if model is None else subject_of("model", model, model_options, registry=registry, called="model=")
    return CONTRACT.judge(OfTerm(subject, beside), subject.name, skip)


def batch(points: int = 3, labelled: bool = True) -> Batch:
    """Two images of 64x64 with points; the last of each is none."""
    numbers = noise.uniforms([noise.stream(0, 0, "term")], 2 * 3 * 64 * 64 + 4 * points).float()[0]
    images, places = numbers.split([2 * 3 * 64 * 64, 4 * points])
    classes = torch.arange(2 * points).view(2, points) % CLASSES
    classes[:, -1] = PADDING
    wanted = classes if labelled else torch.full_like(classes, PADDING)
    return Batch(images.view(2, 3, 64, 64), places.view(2, points, 2), wanted)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfTerm) -> None:
    """The factory gives an nn.Module with a method loss, all of which can be stored."""
    with seeded(CPU, 0, 0, "initial weights"):
        made = built(of.subject, model=TinyModel(CLASSES), classes=CLASSES)
    require(
        isinstance(made, nn.Module), f"the factory gave {described(made)}, no nn.Module", "derive it from nn.Module"
    )
    require(callable(getattr(made, "loss", None)), "it has no loss", "add loss(model, taught), which gives a scalar")
    weights_of(made)


@CONTRACT.check("loss", basic=True)
def _loss(of: OfTerm) -> None:
    """loss gives a finite scalar with a gradient, a finite one of a batch in which nothing is labelled, too."""
    for labelled in (True, False):
        model, term = of.new()
        kept: list[Any] = []
        given = term.loss
        term.loss = lambda model, taught, given=given, kept=kept: kept.append(given(model, taught)) or kept[-1]
        problem: AlsegError | None = None
        try:
            of.loss(batch(labelled=labelled), model.train(), term)
        except AlsegError as error:
            problem = error
        if problem is not None and not kept:
            raise problem
        found, where = kept[0], "" if labelled else " of a batch without labels"
        fits = isinstance(found, Tensor) and found.dim() == 0 and found.is_floating_point()
        require(fits, f"loss gave {described(found)}{where}; expected a float scalar", "end with .mean() or .sum()")
        mend = "divide by count.clamp(min=1), and leave out points whose class is below 0"
        require(bool(found.isfinite()), f"loss{where} is {found.item()}", mend)
        if problem is not None:
            raise problem
        if labelled:
            Losses(model, [term], 0).add_parts(torch.zeros(()), [found])  # which refuses a constant


@CONTRACT.check("gradient")
def _gradient(of: OfTerm) -> None:
    """Its loss reaches each of its own trainable parameters, and none of them becomes infinite."""
    model, term = of.new()
    if not any(p.requires_grad for p in term.parameters()):
        raise Inapplicable("it has no parameters")
    of.loss(batch(8), model.train(), term).backward()
    unreached = [name for name, p in term.named_parameters() if p.requires_grad and p.grad is None]
    require(not unreached, f"no gradient reaches {', '.join(unreached[:3])}", "use it in loss, or leave it out")
    spoilt = [name for name, p in term.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    require(not spoilt, f"the gradient of {', '.join(spoilt[:3])} is not finite", "look for sqrt or log at 0")


@CONTRACT.check("inputs")
def _inputs(of: OfTerm) -> None:
    """What a step knows of its batch stays as it is."""
    model, term = of.new()
    taken: list[str] = []
    given = term.loss

    def watched(model: Any, taught: Any) -> Tensor:
        before = [(name, tensor.clone()) for name, tensor in tensors_in(taught._asdict(), "taught")]
        result = given(model, taught)
        taken.extend(
            name
            for (name, was), (_, now) in zip(before, tensors_in(taught._asdict(), "taught"), strict=True)
            if not torch.equal(was, now)
        )
        return result

    term.loss = watched
    of.loss(batch(), model.train(), term)
    require(not taken, f"loss changed {', '.join(taken[:3])}", "work on a copy, and do without in-place layers")


@CONTRACT.check("seen")
@torch.no_grad()
def _seen(of: OfTerm) -> None:
    """seen, where it has one, gives a finite float32 map [B, 1, h, w] of the model's features."""
    model, term = of.new()
    if not hasattr(term, "seen"):
        raise Inapplicable("it has no seen")
    with mode(model, False):
        found = term.seen(model.encode(batch().images))
    require(
        isinstance(found, Tensor) and found.dim() == 4 and found.shape[:2] == (2, 1) and found.dtype == torch.float32,
        f"seen gave {described(found)}; expected float32 [2, 1, h, w]",
        "give one map for each image, as float32 whatever the precision around it",
    )
    require(bool(found.isfinite().all()), "seen has a number that is not finite", "look for log or division")


@CONTRACT.check("after-step")
def _after_step(of: OfTerm) -> None:
    """after_step, where it has one, takes the model and the share of the training that is done."""
    model, term = of.new()
    if not hasattr(term, "after_step"):
        raise Inapplicable("it has no after_step")
    for done in (0.5, 1.0):
        term.after_step(model, done)
        of.loss(batch(), model.train(), term)


@CONTRACT.check("stored")
def _stored(of: OfTerm) -> None:
    """What it learns is stored with the model and loaded into another."""
    (model, term), (fresh, _) = of.new(), of.new()
    for parameter in term.parameters():
        parameter.data += 1
    fresh.load_state_dict(model.state_dict())
    again: Any = term_called(fresh, NAME)
    same = all(torch.equal(p, q) for p, q in zip(term.parameters(), again.parameters(), strict=True))
    require(same, "its parameters are not in the model's state_dict", "register them as modules or parameters")
