"""Where a transformers network is cut into what encodes and what decodes, found by running it.

Its own forward pass stays in charge: encoding runs it as far as the backbone's outputs, decoding runs it with
these outputs put in the backbone's place. So no architecture's glue between the two is written down here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Run = Callable[[], Any]


class _Reached(Exception):
    """A module was reached: what it was given, or what it gave."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def backbone_of(net: nn.Module) -> str | None:
    """The name of the pretrained part: the network's base model, else the outermost that is made as a backbone."""
    base = getattr(net, "base_model_prefix", "")
    # the base model of a universal network holds the pixel decoder and the queries as well
    if base and hasattr(net, base) and not hasattr(net, "class_predictor"):
        return base
    # what transformers takes as another network's backbone has this method
    made = (name for name, module in net.named_modules() if hasattr(module, "forward_with_filtered_kwargs"))
    return next(made, None)


@contextmanager
def forward_as(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`module` computes `forward` inside."""
    module.forward = functools.wraps(module.forward)(forward)
    try:
        yield
    finally:
        del module.forward


def result_of(module: nn.Module, run: Run) -> Any:
    """What `module` gives when `run` reaches it; nothing after it is computed."""
    forward = module.forward

    def stop(*arguments: Any, **named: Any) -> Any:
        raise _Reached(forward(*arguments, **named))

    return _stopped(module, stop, run)


def given_to(module: nn.Module, run: Run) -> Any:
    """The first argument of `module` when `run` reaches it."""

    def stop(first: Any, *arguments: Any, **named: Any) -> Any:
        raise _Reached(first)

    return _stopped(module, stop, run)


def _stopped(module: nn.Module, stop: Callable[..., Any], run: Run) -> Any:
    with forward_as(module, stop):
        try:
            run()
        except _Reached as reached:
            return reached.value
    raise RuntimeError(f"{type(module).__name__} takes no part in the network")


def replayed(module: nn.Module, outputs: Any, run: Run) -> Any:
    """`run` with `outputs` in the place of what `module` would compute."""
    with forward_as(module, lambda *arguments, **named: copied(outputs)):
        return run()


def copied(outputs: Any) -> Any:
    """The same tensors in containers of their own: some networks append to the lists that they are given."""
    if isinstance(outputs, Mapping):
        return type(outputs)(**{name: copied(part) for name, part in outputs.items()})
    if isinstance(outputs, list | tuple):
        return type(outputs)(copied(part) for part in outputs)
    return outputs


@contextmanager
def in_float32(modules: list[nn.Module]) -> Iterator[None]:
    """These modules compute in float32, whatever the precision around them."""
    if not modules or torch.compiler.is_compiling():  # exports are in float32 throughout
        yield
        return
    forward = modules[0].forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    with forward_as(modules[0], exact), in_float32(modules[1:]):
        yield
