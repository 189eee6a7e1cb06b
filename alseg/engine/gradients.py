"""The forward and backward pass of a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from alseg.engine import aside
from alseg.engine.batches import PADDING, Batch
from alseg.engine.calls import called, told
from alseg.engine.casts import Casts
from alseg.engine.depthwise import has_kernels, is_depthwise
from alseg.engine.device import lower_precision
from alseg.engine.layers import quickened, ways_of
from alseg.engine.norms import fused, fusible_here, sequences
from alseg.engine.steps import Gradients
from alseg.engine.team import ALONE, Team, together
from alseg.engine.terms import terms_of


def gradients_of(
    model: nn.Module,
    loss_of: Callable[..., Tensor],
    descent: torch.optim.Optimizer,
    device: torch.device,
    precision: torch.dtype,
    team: Team = ALONE,
    say: Callable[[str], None] = lambda line: None,
    *,
    fused_norms: bool,
    recorded: bool = False,
) -> Gradients:
    """Forward and backward pass of a batch by the fewest kernels; an error of the latter names the model.

    loss_of: takes a batch's tensors. recorded: whether the steps will be: then kernels that the host takes long to
    launch are worth it on a GPU, and so is a second stream; plain steps are bound by what it can launch. `say` is told
    where norms cannot be fused though they should be.
    """
    norms = fusible_here(model, device, precision, fused_norms and recorded, say)
    # a term may ask for a weight's own gradient, or change weights within the step
    lowers = device.type == "cuda" and precision == torch.bfloat16 and team.size == 1 and not terms_of(model)
    stream = aside.Aside(device) if recorded and lowers else None
    blocks, name, kernels = sequences(model, norms), told(model).name, device.type == "cuda" and recorded
    ways = {
        layer: way
        for layer, way in ways_of(model).items()
        if kernels or device.type == "cpu" or not is_depthwise(layer)
    }
    with quickened(ways if kernels and has_kernels(device) else {}):  # whose layers read the weights as they are
        casts = Casts(model if lowers else nn.Sequential(), precision)

    def gradients(batch: Batch) -> Tensor:
        # in the backward pass, too: what is computed anew there is computed the same way, and a team's members wait
        with together(), fused(norms, blocks), quickened(ways), casts.used(), aside.used(stream):
            with lower_precision(device, precision), stream.forward_pass() if stream else contextlib.nullcontext():
                error = loss_of(*batch.tensors())
            if team.size > 1:  # members' means weigh as their labels do
                known = (batch.classes != PADDING).sum().float()
                error = error * known * team.size / team.total(known.clone()).clamp(min=1)
            descent.zero_grad(set_to_none=True)
            casts.forget()
            called(name, error.backward, "the backward pass")
            if stream is not None:
                stream.join()
            casts.hand_over()
        return error.detach()

    return gradients
