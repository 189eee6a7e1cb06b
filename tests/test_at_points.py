"""Training steps at the points that are recorded, beside plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from test_steps import Replayed
from torch import Tensor, nn

from alseg.engine.batches import Batch
from alseg.engine.gradients import gradients_of
from alseg.engine.steps import WARM_UP, Recorded, Recorder
from alseg.engine.train import _Loss
from alseg_pixelpick import deeplab
from benchmarks.material import model

STEPS = WARM_UP + 3


def gradients_at_points(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    precision: torch.dtype,
    recorder: Callable[[nn.Module], Recorder] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[tuple[float, Tensor]]:
    """The loss and all gradients of each of a few steps of one model, whose weights stay; plain without a recorder."""

    def cells(batch: int, count: int, size: tuple[int, int], corners: Tensor) -> Tensor:
        """The same ones in each step: what is drawn in a recording is not what is drawn outside."""
        places = torch.arange(batch * count, device=corners.device).view(batch, count)
        return torch.stack([places * 5 % size[0], places * 7 % size[1]], -1).to(corners)

    monkeypatch.setattr(deeplab, "drawn_cells", cells)
    network = model("mobilenetv2_100").to(device).to(memory_format=torch.channels_last).train()
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    descent = torch.optim.Adam(network.parameters())
    made = (network, _Loss(network, True), descent, torch.device(device), precision)
    gradients = gradients_of(*made, say=say, fused_norms=True, recorded=recorder is not None)
    if recorder is not None:
        gradients = Recorded(gradients, network.parameters(), 5, recorder(network), say)
    draw = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        images, points = torch.rand(4, 3, 128, 128, generator=draw), torch.rand(4, 5, 2, generator=draw)
        classes = torch.randint(0, 11, (4, 5), generator=draw)
        images = images.contiguous(memory_format=torch.channels_last)
        loss = gradients(Batch(images.to(device), points.to(device), classes.to(device)))
        found = [parameter.grad.float().flatten() for parameter in network.parameters() if parameter.grad is not None]
        yield float(loss), torch.cat(found).clone()


def test_recorded_steps_at_the_points_give_the_plain_ones_gradients(monkeypatch):
    seen: list[Tensor] = []
    patches = deeplab.fused_patches
    monkeypatch.setattr(deeplab, "fused_patches", lambda *given: seen.append(given[2]) or patches(*given))
    plain = list(gradients_at_points(monkeypatch, "cpu", torch.float32))
    assert len(seen) == STEPS, "these maps are larger than the patches"
    recorders: list[Replayed] = []

    def recorder(network: nn.Module) -> Replayed:
        recorders.append(Replayed(network))
        return recorders[-1]

    for (loss, found), (exact, wanted) in zip(
        gradients_at_points(monkeypatch, "cpu", torch.float32, recorder), plain, strict=True
    ):
        assert loss == pytest.approx(exact, rel=1e-4)
        assert float((found - wanted).norm()) <= 1e-2 * float(wanted.norm())
    assert recorders[0].replayed == STEPS - WARM_UP
