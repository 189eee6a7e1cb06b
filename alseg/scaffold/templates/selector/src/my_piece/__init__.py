"""The selector `my-piece`: alseg run --selector my-piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from alseg import PoolBatch, Selection, Selector

ALSEG_API_VERSION = 1


def my_piece(cell: Annotated[int, Between(1)] = 32) -> Selector:
    """The n highest utilities, but one in each square of `cell` pixels as long as there are enough squares."""
    import torch

    from alseg import pick

    # The parameters above are options: -o selector.cell=16. What is heavy is imported in here.
    def select(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """At most n distinct candidates of each image; `pick` takes the highest and gives their values as priority."""
        height, width = batch.size
        rows, columns = -(-height // cell), -(-width // cell)
        hidden = utility.masked_fill(~batch.candidates, -torch.inf)
        padded = torch.nn.functional.pad(hidden, (0, columns * cell - width, 0, rows * cell - height), value=-torch.inf)
        best = torch.nn.functional.max_pool2d(padded[:, None], cell)
        best = best.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[:, 0, :height, :width]
        first = (hidden == best) & batch.candidates  # the best of each square go before all others
        lowest = utility.masked_fill(~batch.candidates, torch.inf).amin((1, 2), keepdim=True)
        span = (hidden.amax((1, 2), keepdim=True) - lowest).clamp(min=0) + 1  # of the candidates' utilities alone
        return pick(utility + span * first, batch.candidates, n)

    return select


@hookimpl
def register_selectors(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
