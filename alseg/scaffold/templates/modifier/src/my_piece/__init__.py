"""The modifier `my-piece`: alseg run --acquirer my-piece:margin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from alseg import Acquirer, PoolBatch

ALSEG_API_VERSION = 1


def my_piece(acquirer: Acquirer, reach: Annotated[int, Between(0)] = 2) -> Acquirer:
    """Utility averaged over the pixels within `reach`, so that one odd pixel counts less."""

    # acquirer is what stands after the colon, given by alseg: the parameter's name makes this a modifier.
    # The others are options: -o acquirer.reach=3, beside those of what it modifies.
    def utility(batch: PoolBatch) -> Tensor:
        """[B, H, W], higher = ask first, finite everywhere."""
        import torch

        values, side = acquirer(batch).unsqueeze(1), 2 * reach + 1
        mean = torch.nn.functional.avg_pool2d(values, side, stride=1, padding=reach, count_include_pad=False)
        return mean.squeeze(1)

    return utility


@hookimpl
def register_acquirers(register):
    """Add it to alseg; a modifier of selectors, with a parameter `selector`, is registered as a selector, and so on."""
    register("my-piece", my_piece)
