"""Training at the points: the loss is taken where the labels are and nowhere else."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.batches import PADDING, Batch, BatchSource
from alseg.engine.calls import called, decoded, decoded_at, encoded, groups_of, term_loss, term_parameters, told
from alseg.engine.descent import stepper
from alseg.engine.device import lower_precision, mode, seeded
from alseg.engine.gradients import gradients_of
from alseg.engine.losses import Losses
from alseg.engine.steps import CUDAGraph, Gradients, Recorded
from alseg.engine.team import ALONE, Team
from alseg.engine.terms import terms_of
from alseg.errors import AlsegError
from alseg.grid import resize, sample
from alseg.protocols import Model, Term, members_of
from alseg.settings import TrainSettings
from alseg.values import Taught

Advance = Callable[[int, float | None], None]  # images done, and at an epoch's end its mean loss


@dataclass(frozen=True)
class TrainResult:
    """Mean loss of the last epoch (None where nothing is labelled), steps, labelled images, seconds.

    watched: what `watch` gave after each epoch, if anything. decode: points or dense, where the decoder was computed.
    """

    loss: float | None
    steps: int
    images: int
    seconds: float
    watched: Sequence[float] = ()
    decode: str = "dense"


def train(
    model: Model,
    source: BatchSource,
    settings: TrainSettings,
    *,
    seed: int,
    round: int,
    device: torch.device,
    precision: torch.dtype,
    advance: Advance = lambda images, loss: None,
    watch: Callable[[], float] | None = None,
    say: Callable[[str], None] = lambda line: None,
    team: Team = ALONE,
) -> TrainResult:
    """Train a fresh model on the labelled pixels, in place; `watch` is called after each epoch.

    A team's members train on their shares of each batch; the gradients are those of the whole batch, but for
    the batch norms, which see a member's own images.
    """
    assert isinstance(model, nn.Module)
    started = time.perf_counter()
    at_points = decodes_at_points(model, source, settings)
    descent = optimizer(model, settings)
    descend = stepper(descent, device)
    factors = rate_factors(settings, source.steps)
    bases = [group["lr"] for group in descent.param_groups]
    loss, steps, watched = None, 0, []
    terms = terms_of(model)
    losses = Losses(model, terms, round)
    loss_of = team.wrapped(_Loss(model, at_points, losses), device)
    recorded = can_record(settings, device, team, terms)
    given = (model, loss_of, descent, device, precision, team, say)
    made = partial(gradients_of, *given, fused_norms=settings.fused_norms)
    gradients: Gradients = made(recorded=recorded)
    if recorded:
        gradients = Recorded(gradients, model.parameters(), source.most_points, CUDAGraph(), say, made)
    with seeded(device, seed, round, "training" if team.leads else f"training {team.rank}"), mode(model, True):
        for epoch in range(settings.epochs if source.steps else 0):
            total = torch.zeros((), device=device)
            for batch, images in zip(source.epoch(epoch), source.sizes, strict=True):
                for group, base in zip(descent.param_groups, bases, strict=True):
                    group["lr"] = base * factors[steps]
                total += (error := gradients(batch))
                losses.add_step(error)
                descend()
                steps += 1
                for term in terms:
                    if hasattr(term, "after_step"):
                        called(told(term).name, partial(term.after_step, model, steps / len(factors)), "after_step")
                advance(images, None)
            # the only synchronisation with the host in an epoch
            loss = float(team.total(total)) / (source.steps * team.size)
            losses.end_epoch(epoch, loss)
            advance(0, loss)
            with seeded(device, seed, round, "settling"):  # and the training's own draws go on after it
                if at_points and (watch is not None or epoch == settings.epochs - 1):
                    settle_batch_norms(model, source.epoch(settings.epochs), device, precision)
                team.mean(buffer for buffer in model.buffers() if buffer.is_floating_point())
                if watch is not None:
                    watched.append(watch())
    if steps:
        losses.end()
    seconds = time.perf_counter() - started
    return TrainResult(loss, steps, len(source.taught), seconds, watched, "points" if at_points else "dense")


def decodes_at_points(model: Model, source: BatchSource, settings: TrainSettings) -> bool:
    """Whether the decoder is computed around the labelled points only, which a model with `decode_at` can."""
    able = not source.dense and all(hasattr(member, "decode_at") for member in members_of(model))
    return able and settings.decode == "points"


def can_record(settings: TrainSettings, device: torch.device, team: Team, terms: Sequence[Any]) -> bool:
    """Whether steps may be recorded as a CUDA graph; a term may do what cannot be."""
    return settings.cuda_graph and device.type == "cuda" and team.size == 1 and not terms


class _Loss(nn.Module):
    """The loss as a module, which is what gradients are averaged over a team for."""

    def __init__(self, model: nn.Module, at_points: bool, losses: Losses | None = None) -> None:
        super().__init__()
        self.model, self._at_points, self._losses = model, at_points, losses

    def forward(self, images: Tensor, points: Tensor | None, classes: Tensor) -> Tensor:
        batch = Batch(images, points, classes)
        if terms := terms_of(self.model):
            return loss_with_terms(self.model, batch, self._at_points, terms, self._losses)  # type: ignore[arg-type]
        losses = [point_loss(member, batch, self._at_points) for member in members_of(self.model)]
        if len(losses) == 1:
            return losses[0]
        total = torch.stack(losses).sum()  # by which each member learns as if it were alone
        return total - (total - total / len(losses)).detach()  # while what is told is their mean


def point_loss(model: Model, batch: Batch, at_points: bool) -> Tensor:
    """Mean cross-entropy over the batch's labelled points, or pixels; 0 where it has none."""
    logits = _logits(model, encoded(model, batch.images), batch, at_points)
    return _losses(logits, batch).sum() / (batch.classes != PADDING).sum().clamp(min=1)


def loss_with_terms(
    model: Model, batch: Batch, at_points: bool, terms: Sequence[Term], losses_kept: Losses | None = None
) -> Tensor:
    """`point_loss` of a batch with points, and what the terms add to it; `losses_kept` is told of each part."""
    assert batch.points is not None
    features = encoded(model, batch.images)
    logits = _logits(model, features, batch, at_points)
    losses = _losses(logits, batch)
    loss = losses.sum() / (batch.classes != PADDING).sum().clamp(min=1)
    taught = Taught(batch.images, features, logits, batch.points, batch.classes, losses)
    added = [term_loss(term, model, taught) for term in terms]
    if losses_kept is not None:
        losses_kept.add_parts(loss, added)
    return loss + torch.stack(added).sum()


def _logits(model: Model, features: Any, batch: Batch, at_points: bool) -> Tensor:
    """float32 at the batch's points [B, C, n], or pixels [B, C, H, W]."""
    way = "decode_at" if at_points else "decode_sampled"
    if batch.points is not None and (at_points or hasattr(model, way)):
        logits = decoded_at(model, features, batch.points, way)
    else:
        maps = decoded(model, features, len(batch.images))
        height, width = batch.images.shape[-2:]
        logits = resize(maps, (height, width)) if batch.points is None else sample(maps, batch.points)
    if torch.is_grad_enabled() and not logits.requires_grad:
        raise AlsegError(
            f"{told(model).name} cannot be trained, no gradient comes out of it: leave out detach and torch.no_grad on "
            "the way, or freeze less."
        )
    return logits


def _losses(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of the batch's points [B, n] or pixels [B, H, W], 0 where there is no label."""
    classes = batch.classes
    if logits.dim() == 3:
        rows = logits.transpose(1, 2).flatten(0, 1)  # [B n, C]
        return F.cross_entropy(rows, classes.flatten(), ignore_index=PADDING, reduction="none").view_as(classes)
    # of maps it has no deterministic backward pass on CUDA; log_softmax and gather have
    gains = F.log_softmax(logits, 1).gather(1, classes.clamp(min=0).unsqueeze(1)).squeeze(1)
    return -gains.where(classes != PADDING, 0)


def rate_factors(settings: TrainSettings, steps: int) -> Sequence[float]:
    """What the learning rate is multiplied with at each step of a training, `steps` an epoch.

    multistep: x decay from epoch round(milestone x epochs) on; poly: (1 - step / steps) ^ power. During
    `warm_up` epochs that is multiplied with a factor that rises linearly to 1.
    """
    epochs, total = settings.epochs, settings.epochs * steps
    milestones = settings.milestones if settings.schedule == "multistep" else ()
    turns = [max(1, round(milestone * epochs)) for milestone in milestones]  # one epoch at the full rate at least
    factors = [settings.decay ** sum(step // steps >= turn for turn in turns) for step in range(total)]
    if settings.schedule == "poly":
        factors = [(1 - step / total) ** settings.power for step in range(total)]
    rising = settings.warm_up * steps
    return [factor * min(1.0, (step + 1) / rising if rising else 1.0) for step, factor in enumerate(factors)]


def optimizer(model: Model, settings: TrainSettings) -> torch.optim.Optimizer:
    """The recipe's optimiser over the model's parameter groups, each at its rate."""
    groups = [
        {"params": list(parameters), "lr": settings.learning_rate * (settings.encoder_rate if part == "encoder" else 1)}
        for part, parameters in groups_of(model).items()
    ]
    known = {id(parameter) for group in groups for parameter in group["params"]}  # type: ignore[attr-defined]
    added = [p for term in terms_of(model) for p in term_parameters(term) if id(p) not in known]
    if added:
        groups.append({"params": added, "lr": settings.learning_rate})
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, weight_decay=decay, fused=True)
    return torch.optim.Adam(groups, lr=settings.learning_rate, weight_decay=decay, fused=True)


def _is_of(group: set[int], model: nn.Module, name: str) -> bool:
    """Whether the module of that name, or the smallest around it that has parameters, has some of these."""
    while not (found := [id(parameter) for parameter in model.get_submodule(name).parameters()]) and name:
        name = name.rpartition(".")[0]
    return not group.isdisjoint(found)


@torch.no_grad()
def settle_batch_norms(
    model: Model, batches: Iterable[Batch], device: torch.device, precision: torch.dtype, most: int = 200
) -> None:
    """Re-estimate the decoder's batch norms by decoding up to `most` training images densely.

    Training at the points shows them a few positions of each map; evaluation shows them all. Everything
    is as in training, dropout too; the encoder's running statistics stay as they are.
    """
    assert isinstance(model, nn.Module)
    decoder = {id(parameter) for parameter in groups_of(model)["decoder"]}
    apart = {id(module) for term in terms_of(model) for module in term.modules()}
    named = {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in apart}
    norms = list(named.values())
    momenta = [norm.momentum for norm in norms]
    settled = [norm for name, norm in named.items() if _is_of(decoder, model, name)]
    for norm in norms:
        norm.momentum = 0.0
    for norm in settled:
        norm.reset_running_stats()
    hooks = [norm.register_forward_pre_hook(_averaging()) for norm in settled]
    seen = 0
    for batch in batches:
        with lower_precision(device, precision):
            decoded(model, encoded(model, batch.images), len(batch.images))
        seen += len(batch.images)
        if seen >= most:
            break
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _averaging() -> Callable[[Any, Any], None]:
    """Before each call of a batch norm: its statistics become a plain mean over its calls.

    So they do without a momentum, where torch waits for a GPU in each call.
    """
    calls = itertools.count(1)

    def before(norm: Any, _: Any) -> None:
        norm.momentum = 1 / next(calls)

    return before
