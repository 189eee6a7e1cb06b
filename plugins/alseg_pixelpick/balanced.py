"""Choices that give each predicted class its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal

import torch
from torch import Tensor

from alseg.protocols import Selector
from alseg.ranking import lowest, pick, places
from alseg.values import PoolBatch, Selection


def balanced_random(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
    """n candidates at random, as many of each class that the model predicts among them as of any other.

    Each class draws its candidates uniformly, in turns; who is served in a last turn that does not reach all of
    them is drawn as well. A class with too few leaves its turns to the others. The priority is minus the
    turn's number and the draw, so that over a pool's budget each class of each image has its turn.
    """
    return _in_turns(batch, n, "balanced-random")


def _in_turns(batch: PoolBatch, n: int, purpose: str) -> Selection:
    allowed, predicted = batch.candidates.flatten(1), batch.prediction.predicted().flatten(1)
    turns = places(-batch.noise(purpose).flatten(1), predicted, allowed)
    # drawn anew: the lowest key of a large class is lower than that of a small one
    drawn = batch.noise(f"{purpose} turns")
    return pick(-(turns.view_as(drawn) + drawn), batch.candidates, n)


@dataclass(frozen=True)
class Stratified:
    """A share of the picks divided equally among the predicted classes, the rest chosen freely.

    After the class-stratified querying of ClaSP-PE (arXiv 2601.13677), for the pixels of one image: of n
    picks `balanced` x n, rounded, are divided among the classes as `balanced_random` does. Within a class, and
    then for the rest among all that is left, the selector chooses. Over a pool's budget each class of each image
    has its turn before any has another, and the rest comes last; the selector's priorities decide within a turn.
    """

    selector: Selector
    balanced: float = 0.66

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """n of the candidates, highest priority first."""
        share = int((Decimal(str(self.balanced)) * n).to_integral_value(ROUND_HALF_UP))
        if share == 0:
            return self.selector(batch, utility, n)
        predicted, free = batch.prediction.predicted(), batch.candidates.clone()
        drawn = _in_turns(batch, share, "stratified").indices  # [B, share]: how many of which class, no more
        classes = torch.where(drawn < 0, -1, predicted.flatten(1).gather(1, drawn.clamp(min=0)))
        parts: list[Selection] = []
        for value in classes.unique().tolist():
            if value >= 0:
                among = replace(batch, candidates=batch.candidates & (predicted == value))
                # asked for n whatever the quota, so that a choice does not depend on the images beside it
                parts.append(_in_turn(_first(self.selector(among, utility, n), (classes == value).sum(1))))
        for part in parts:
            rows, columns = (part.indices >= 0).nonzero(as_tuple=True)
            free.flatten(1)[rows, part.indices[rows, columns]] = False
        # other keys: those of the pixels that are left are high, the more so the smaller their class
        others = replace(batch, candidates=free, noise=lambda purpose: batch.noise(f"stratified rest, {purpose}"))
        left = torch.as_tensor(n - sum((part.indices >= 0).sum(1) for part in parts)).to(free.device)
        rest = _first(self.selector(others, utility, n), left.expand(len(free)))
        return _joined([*parts, _levelled(rest, torch.full_like(rest.indices[:1], n))], n)


def _first(selection: Selection, counts: Tensor) -> Selection:
    """The first `counts` [B] of each image's picks, the others as padding."""
    chosen = selection.indices >= 0
    kept = chosen & (chosen.cumsum(1) <= counts[:, None])
    low = lowest(selection.priority.dtype)
    return Selection(torch.where(kept, selection.indices, -1), torch.where(kept, selection.priority, low))


def _in_turn(selection: Selection) -> Selection:
    """Each image's first pick before any image's second."""
    return _levelled(selection, torch.arange(selection.indices.shape[1], device=selection.indices.device))


def _levelled(selection: Selection, levels: Tensor) -> Selection:
    """Priorities by level, the lower before the higher, and within one by the selection's own, float64."""
    within = selection.priority.double().atan() / torch.pi  # in their order, from -1/2 to 1/2
    return Selection(selection.indices, torch.where(selection.indices >= 0, within - 2 * levels, -torch.inf))


def _joined(parts: Sequence[Selection], n: int) -> Selection:
    """All picks of each image, n at most, in order of priority; ties in the parts' order."""
    indices = torch.cat([part.indices for part in parts], 1)
    priority = torch.cat([part.priority for part in parts], 1)
    order = priority.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, (indices.gather(1, order) < 0).to(torch.int8).argsort(dim=1, stable=True))[:, :n]
    return Selection(indices.gather(1, order), priority.gather(1, order))
