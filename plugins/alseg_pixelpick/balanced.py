"""Choices that give each predicted class its share."""

from __future__ import annotations

from torch import Tensor

from alseg.ranking import pick, places
from alseg.values import PoolBatch, Selection


def balanced_random(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
    """n candidates at random, as many of each class that the model predicts among them as of any other.

    Each class draws its candidates uniformly, in turns; who is served in a last turn that does not reach all of
    them is drawn as well. A class with too few leaves its turns to the others. The priority is minus the
    turn's number and the draw, so that over a pool's budget each class of each image has its turn.
    """
    allowed = batch.candidates.flatten(1)
    turns = places(-batch.noise("balanced-random").flatten(1), batch.prediction.predicted().flatten(1), allowed)
    # drawn anew: the lowest key of a large class is lower than that of a small one
    drawn = batch.noise("balanced-random turns")
    return pick(-(turns.view_as(drawn) + drawn), batch.candidates, n)
