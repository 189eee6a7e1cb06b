"""The weights of a training step in bfloat16, all cast at once.

Under autocast each layer casts its own weight, and in the backward pass its gradient back: on a GPU two kernels a
layer that take less time than their launch. Here a few cast all of them, and the numbers are the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alseg.engine import aside
from alseg.engine.descent import works_on
from alseg.engine.tables import alike, chunks_of, on

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # those that autocast gives weights of lower precision


class Casts:
    """A model's weights in lower precision, for the layers that multiply with them under autocast."""

    def __init__(self, model: nn.Module, precision: torch.dtype) -> None:
        self._precision = precision
        self._layers: dict[nn.Module, dict[str, nn.Parameter]] = {}  # each layer's own, by name
        self._lower: dict[nn.Parameter, Tensor] = {}
        self._versions: dict[nn.Parameter, int] = {}  # when they were cast
        self._places: list[int] = []  # addresses that the table has
        self._table: Tensor | None = None  # None where the kernel does not fit; stays, as a recording reads it
        for layer in model.modules():
            if type(layer) not in LAYERS or "forward" in vars(layer):
                continue
            own = {name: p for name, p in layer.named_parameters(recurse=False) if name in ("weight", "bias")}
            if "weight" not in own or any(p.dtype != torch.float32 or aside.watched(p) for p in own.values()):
                continue
            self._layers[layer] = own
            self._lower |= {p: torch.empty_like(p, dtype=precision, requires_grad=False) for p in own.values()}

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """The layers multiply with their weights of now inside, wherever autocast would cast these."""
        if self._lower:
            self._cast()
            for parameter, lower in self._lower.items():
                lower.requires_grad_(parameter.requires_grad)
                self._versions[parameter] = parameter._version
        try:
            for layer, own in self._layers.items():
                layer.forward = partial(self._forward, layer, own)
            yield
        finally:
            for layer in self._layers:
                vars(layer).pop("forward", None)

    @torch.no_grad()
    def _cast(self) -> None:
        """Write the weights of now into their copies, by one kernel where all are where they were the first time."""
        weights: list[Tensor] = list(self._lower)
        lowers = list(self._lower.values())
        places = [tensor.data_ptr() for tensor in (*weights, *lowers)]
        if not self._places and not _recorded(weights[0].device):
            self._places, self._table = places, _table_of(weights, lowers)
        if self._table is not None and places == self._places:
            from alseg.engine import cast_kernels

            cast_kernels.cast(self._table)
            torch.autograd.graph.increment_version(lowers)  # as torch's own operators do
        else:
            torch._foreach_copy_(lowers, weights)

    def forget(self) -> None:
        """Leave no gradients of an earlier backward pass, which may have failed."""
        for lower in self._lower.values():
            lower.grad = None

    @torch.no_grad()
    def hand_over(self) -> None:
        """Add to the parameters' gradients those that a backward pass has left with the lower weights."""
        found = [(parameter, lower.grad) for parameter, lower in self._lower.items() if lower.grad is not None]
        if not found:
            return
        gradients = [torch.empty_like(parameter) for parameter, _ in found]
        torch._foreach_copy_(gradients, [gradient for _, gradient in found])
        for (parameter, _), gradient in zip(found, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self.forget()

    def _forward(self, layer: nn.Module, own: dict[str, nn.Parameter], *given: Any, **named: Any) -> Any:
        plainly, kind = type(layer).forward, own["weight"].device.type
        lowers = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == self._precision
        # others than those that were cast: replaced, written into since, or to be written into
        others = layer._forward_pre_hooks or any(
            layer._parameters.get(name) is not parameter or parameter._version != self._versions[parameter]
            for name, parameter in own.items()
        )
        # torch.func lowers nothing, and knows no functions of ours
        if not lowers or others or torch._C._are_functorch_transforms_active():
            return plainly(layer, *given, **named)
        beside = aside.here()
        if beside is not None and len(given) == 1 and not named and aside.fits(layer, given[0]):
            weight, bias = (self._lower[own[name]] if name in own else None for name in ("weight", "bias"))
            assert isinstance(layer, nn.Conv2d) and weight is not None
            return aside.convolved(layer, given[0].to(self._precision), weight, bias, beside)
        layer._parameters.update({name: self._lower[parameter] for name, parameter in own.items()})  # type: ignore[misc]
        try:
            return plainly(layer, *given, **named)
        finally:
            layer._parameters.update(own)


def _recorded(device: torch.device) -> bool:
    """Whether what is done now is recorded as a CUDA graph, in which nothing can be had from the host."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _table_of(weights: list[Tensor], lowers: list[Tensor]) -> Tensor | None:
    """The kernel's, or None where it does not fit."""
    pairs, device = list(zip(weights, lowers, strict=True)), weights[0].device
    fits = works_on(device) and all(weight.device == device and alike((weight, lower)) for weight, lower in pairs)
    if not fits or any(lower.dtype != torch.bfloat16 for lower in lowers):
        return None
    from alseg.engine.cast_kernels import CHUNK

    return on(device, [line for pair in pairs for line in chunks_of(pair, CHUNK)])
