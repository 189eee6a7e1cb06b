"""The acquirer `my-piece`: alseg run --acquirer my-piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from alseg import Acquirer, PoolBatch

ALSEG_API_VERSION = 1


def my_piece(rivals: Annotated[int, Between(2)] = 3) -> Acquirer:
    """How close the likeliest classes are: the last of so many `rivals` minus the first."""

    # The parameters above are options: -o acquirer.rivals=2. What is heavy is imported in here.
    def utility(batch: PoolBatch) -> Tensor:
        """[B, H, W], higher = ask first, finite everywhere."""
        probabilities = batch.prediction.probabilities()  # [B, C, H, W]
        count = min(rivals, probabilities.shape[1])
        best = probabilities.topk(count, 1).values
        return best[:, -1] - best[:, 0]

    return utility


@hookimpl
def register_acquirers(register):
    """Add it to alseg."""
    register("my-piece", my_piece)
