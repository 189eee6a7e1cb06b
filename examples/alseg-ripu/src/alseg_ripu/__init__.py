"""The acquirer `ripu`: region impurity times prediction uncertainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from alseg import Between, hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from alseg import Acquirer, PoolBatch

ALSEG_API_VERSION = 1


def ripu(reach: Annotated[int, Between(1, 64)] = 1) -> Acquirer:
    """Mixed predicted classes times mean entropy within `reach` pixels (Xie et al., CVPR 2022, eq. 2 to 4)."""

    def utility(batch: PoolBatch) -> Tensor:
        """[B, H, W] in [0, 1]: 1 where all classes are predicted alike often and each pixel is undecided."""
        import math

        from torch.nn.functional import avg_pool2d, one_hot
        from torch.special import entr

        def around(maps: Tensor) -> Tensor:  # means over the window, cut off at the image's border
            return avg_pool2d(maps, 2 * reach + 1, stride=1, padding=reach, count_include_pad=False)

        classes = batch.prediction.probabilities().shape[1]
        predicted = one_hot(batch.prediction.predicted(), classes).movedim(-1, 1).float()  # [B, C, H, W]
        impurity = entr(around(predicted)).sum(1)
        uncertainty = around(batch.prediction.entropy()[:, None])[:, 0]
        return impurity * uncertainty / math.log(max(classes, 2)) ** 2

    return utility


@hookimpl
def register_acquirers(register):
    """Add it to alseg."""
    register("ripu", ripu)
