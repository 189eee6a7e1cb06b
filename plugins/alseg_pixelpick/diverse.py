"""Picks that differ from one another in what the model sees there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alseg.grid import fractions, sample
from alseg.ranking import highest
from alseg.values import PoolBatch, Selection
from alseg_pixelpick.selectors import share_of, ties_of

CHUNK = 4096  # pixels whose embeddings are held at once


@dataclass(frozen=True)
class Diverse:
    """Of max(n, ceil(top x candidates)) of highest utility, n by k-means++ over the model's embedding.

    The first is drawn uniformly, each further one with odds that are its squared distance to the nearest of
    those before (Arthur and Vassilvitskii, SODA 2007, section 2.2). Best first is the order of drawing; the
    priority is the utility.
    """

    top: float = 0.05

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """n of the most useful candidates of each image."""
        flat = utility.flatten(1)
        best = highest(flat, batch.candidates.flatten(1), share_of(batch, self.top, n), ties_of(batch))
        maps = batch.prediction.embedding()
        pixels = [row.nonzero()[:, 0] for row in best]  # of each image
        odds = [torch.ones(len(members), dtype=torch.float64, device=flat.device) for members in pixels]
        indices = torch.full((len(flat), n), -1, dtype=torch.int64, device=flat.device)
        for turn in range(n):
            keys = batch.noise(f"diverse {turn}").flatten(1)
            for i, members in enumerate(pixels):
                if turn < len(members):
                    drawn = _drawn(odds[i], keys[i, members])
                    indices[i, turn] = members[drawn]
                    near = _distances(maps[i : i + 1], members, members[drawn], batch.size)
                    odds[i] = near if turn == 0 else torch.minimum(odds[i], near)
                    odds[i][drawn] = -1
        chosen = indices >= 0
        worth = flat.gather(1, indices.clamp(min=0))
        return Selection(indices, torch.where(chosen, worth, -torch.inf))


def _drawn(odds: Tensor, keys: Tensor) -> Tensor:
    """Where one is drawn by its odds [m]: the first in a race of exponential times.

    Who is drawn already has odds below 0; those with odds of 0 come last, in any order.
    """
    times = -torch.log1p(-keys) / odds.clamp(min=1e-300)
    return torch.where(odds < 0, torch.inf, times).argmin()


def _distances(maps: Tensor, pixels: Tensor, centre: Tensor, size: tuple[int, int]) -> Tensor:
    """Squared distances float64 [m] of the embeddings [1, D, h, w] at pixels [m] of an image to that at `centre`."""

    def at(places: Tensor) -> Tensor:
        return sample(maps, fractions(torch.stack([places // size[1], places % size[1]], -1), size)[None])[0]

    middle = at(centre[None])  # [D, 1]
    return torch.cat([(at(part) - middle).square().sum(0).double() for part in pixels.split(CHUNK)])
