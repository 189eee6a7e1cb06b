"""Training at the points: the loss is taken where the labels are and nowhere else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.engine.batches import PADDING, Batch, BatchSource
from alseg.engine.device import lower_precision, mode, seeded
from alseg.engine.steps import CUDAGraph, Gradients, Recorded
from alseg.engine.team import ALONE, Team
from alseg.errors import UserMistake
from alseg.grid import resize, sample
from alseg.protocols import Model, members_of
from alseg.settings import TrainSettings

Advance = Callable[[int, float | None], None]  # images done, and at an epoch's end its mean loss


@dataclass(frozen=True)
class TrainResult:
    """Mean loss of the last epoch (None where nothing is labelled), steps, labelled images, seconds.

    watched: what `watch` gave after each epoch, if anything.
    """

    loss: float | None
    steps: int
    images: int
    seconds: float
    watched: Sequence[float] = ()


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
    can = all(hasattr(member, "decode_at") for member in members_of(model))
    at_points = settings.decode == "points" and can and not source.dense
    descent = optimizer(model, settings)
    factors = rate_factors(settings, source.steps)
    bases = [group["lr"] for group in descent.param_groups]
    loss, steps, watched = None, 0, []
    gradients = _gradients(team.wrapped(_Loss(model, at_points), device), descent, device, precision, team)
    if settings.cuda_graph and device.type == "cuda" and team.size == 1:
        gradients = Recorded(gradients, model.parameters(), source.most_points, CUDAGraph(), say)
    with seeded(device, seed, round, "training" if team.leads else f"training {team.rank}"), mode(model, True):
        for epoch in range(settings.epochs if source.steps else 0):
            total = torch.zeros((), device=device)
            for batch in source.epoch(epoch):
                for group, base in zip(descent.param_groups, bases, strict=True):
                    group["lr"] = base * factors[steps]
                total += gradients(batch)
                descent.step()
                steps += 1
                advance(len(batch.images) * team.size, None)
            # the only synchronisation with the host in an epoch
            loss = float(team.total(total)) / (source.steps * team.size)
            if not math.isfinite(loss):
                raise UserMistake(
                    f"The training of round {round} diverged in epoch {epoch + 1}, its loss is {loss}: start another "
                    "run with a lower train.learning_rate."
                )
            advance(0, loss)
            with seeded(device, seed, round, "settling"):  # and the training's own draws go on after it
                if at_points and (watch is not None or epoch == settings.epochs - 1):
                    settle_batch_norms(model, source.epoch(settings.epochs), device, precision)
                team.mean(buffer for buffer in model.buffers() if buffer.is_floating_point())
                if watch is not None:
                    watched.append(watch())
    return TrainResult(loss, steps, len(source.taught), time.perf_counter() - started, watched)


def _gradients(
    loss_of: nn.Module, descent: torch.optim.Optimizer, device: torch.device, precision: torch.dtype, team: Team
) -> Gradients:
    """Forward and backward pass of a batch."""

    def gradients(batch: Batch) -> Tensor:
        with lower_precision(device, precision):
            error: Tensor = loss_of(*batch.tensors())
        if team.size > 1:  # members' means weigh as their labels do
            known = (batch.classes != PADDING).sum().float()
            error = error * known * team.size / team.total(known.clone()).clamp(min=1)
        descent.zero_grad(set_to_none=True)
        error.backward()
        return error.detach()

    return gradients


class _Loss(nn.Module):
    """The loss as a module, which is what gradients are averaged over a team for."""

    def __init__(self, model: nn.Module, at_points: bool) -> None:
        super().__init__()
        self.model, self._at_points = model, at_points

    def forward(self, images: Tensor, points: Tensor | None, classes: Tensor) -> Tensor:
        batch = Batch(images, points, classes)
        losses = [point_loss(member, batch, self._at_points) for member in members_of(self.model)]
        if len(losses) == 1:
            return losses[0]
        total = torch.stack(losses).sum()  # by which each member learns as if it were alone
        return total - (total - total / len(losses)).detach()  # while what is told is their mean


def point_loss(model: Model, batch: Batch, at_points: bool) -> Tensor:
    """Mean cross-entropy over the batch's labelled points, or pixels; 0 where it has none."""
    features = model.encode(batch.images)
    if batch.points is None:
        height, width = batch.images.shape[-2:]
        logits = resize(model.decode(features).float(), (height, width))
    elif at_points:
        logits = model.decode_at(features, batch.points)  # type: ignore[attr-defined]
    else:
        logits = sample(model.decode(features).float(), batch.points)
    known = batch.classes != PADDING
    # log_softmax and gather: cross_entropy of maps has no deterministic backward on CUDA
    gains = F.log_softmax(logits.float(), 1).gather(1, batch.classes.clamp(min=0).unsqueeze(1)).squeeze(1)
    return -gains.where(known, 0).sum() / known.sum().clamp(min=1)


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
        for part, parameters in model.parameter_groups().items()
    ]
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, weight_decay=decay, fused=True)
    return torch.optim.Adam(groups, lr=settings.learning_rate, weight_decay=decay, fused=True)


@torch.no_grad()
def settle_batch_norms(
    model: Model, batches: Iterable[Batch], device: torch.device, precision: torch.dtype, most: int = 200
) -> None:
    """Re-estimate the decoder's batch norms by decoding up to `most` training images densely.

    Training at the points shows them a few positions of each map; evaluation shows them all. Everything
    is as in training, dropout too; the encoder's running statistics stay as they are.
    """
    assert isinstance(model, nn.Module)
    decoder = {id(parameter) for parameter in model.parameter_groups()["decoder"]}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if id(norm.weight) in decoder:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
    seen = 0
    for batch in batches:
        with lower_precision(device, precision):
            model.decode(model.encode(batch.images))
        seen += len(batch.images)
        if seen >= most:
            break
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
