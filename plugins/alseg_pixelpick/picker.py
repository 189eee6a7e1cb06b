"""A person who clicks where the model is wrong, simulated: the human picker of the paper's section D without one."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from scipy import ndimage
from torch import Tensor

from alseg.answering import OpenRound
from alseg.errors import AlsegError, UserMistake
from alseg.values import PoolBatch, Selection

WHO = "simulated-picker"


class SimulatedPicker:
    """Picks pixels that the model gets wrong, uniformly, and none in a wrong region again before all have one.

    A region is a connected part (8 neighbours) of the wrongly predicted pixels. Where too few pixels are
    wrong, the rest is uniform over those that are right. Void pixels are not picked while there are others.
    """

    def attend(self, round: OpenRound) -> None:
        """Pick what has no pixel yet; the truth is read from the images' masks."""
        index = {round.images.key(i): i for i in range(len(round.images))}
        for image, asked in groupby(round.unplaced(), key=lambda question: question.image):
            items = [question.item for question in asked]
            truth, predicted = round.images.mask(index[image]), round.predicted(image)
            if truth is None:
                raise UserMistake(f"The selector simulated-picker needs a mask of {image}, which has none.")
            if predicted is None:
                raise AlsegError("The selector simulated-picker needs the last round's model, which is gone.")
            free = np.ones(truth.shape, bool)
            for label in round.points(image):
                free[label.y, label.x] = False
            for question in round.placed(image):
                if question.y is not None:
                    free[question.y, question.x] = False
            keys = round.noise("simulated picker", image)
            places = picks(truth, predicted, free, keys, len(items), round.classes.void)
            round.pick_all([(item, y, x) for item, (y, x) in zip(items, places, strict=True)], WHO)

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """Not in a run: there it attends."""
        raise AlsegError("The selector simulated-picker picks where a whole round is open, not in a batch.")


def picks(
    truth: np.ndarray, predicted: np.ndarray, free: np.ndarray, keys: np.ndarray, n: int, void: int
) -> list[tuple[int, int]]:
    """The n pixels that are picked, (y, x); truth, predicted, free and keys are [H, W], low keys come first."""
    known = free & (truth != void)
    wrong = known & (predicted != truth)
    regions, _ = ndimage.label((predicted != truth) & (truth != void), np.ones((3, 3)))
    flat = np.flatnonzero(wrong)
    flat = flat[np.argsort(keys.ravel()[flat], kind="stable")]
    order = np.argsort(_turn(regions.ravel()[flat]), kind="stable")  # each region's first, then the second
    chosen = list(flat[order][:n])
    for rest in (known & ~wrong, free & ~known):
        spare = np.flatnonzero(rest)
        chosen += list(spare[np.argsort(keys.ravel()[spare], kind="stable")][: n - len(chosen)])
    return [(int(place) // truth.shape[1], int(place) % truth.shape[1]) for place in chosen]


def _turn(regions: np.ndarray) -> np.ndarray:
    """For each entry how many of its region come before it."""
    order = np.argsort(regions, kind="stable")
    ordered = regions[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, int)
    turn = np.empty(len(regions), np.int64)
    lengths = np.diff(np.r_[starts, len(ordered)])
    turn[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return turn
