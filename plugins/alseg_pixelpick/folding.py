"""Batch norms folded into the convolutions before them, for passes in evaluation mode.

A norm in evaluation mode is a scale and a shift of each channel; so is what a convolution's weights and bias
can do. On a CPU the activation joins in as well, in one call of oneDNN, and large 3x3 convolutions in float32
are done by Winograd's algorithm.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from alseg.engine import winograd
from alseg.engine.dilated import is_dilated, seen_taps

M = TypeVar("M", bound=nn.Module)
_tracing = threading.Lock()  # torch.fx takes hold of what the whole process calls

# Activations that oneDNN applies to a convolution's result, by their names there.
FUSED: dict[type, tuple[str, list[float]]] = {
    nn.Identity: ("none", []),
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


class FoldedConv2d(nn.Module):
    """Convolution, norm and activation as one; `precision` is its weights'."""

    def __init__(self, convolve: nn.Conv2d, norm: nn.BatchNorm2d, activate: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        weight, bias = folded_weights(convolve, norm)
        self.weight = weight.to(precision).contiguous(memory_format=torch.channels_last)
        self.bias = bias.to(precision)
        self.activate = activate
        self._fused = FUSED.get(type(activate))
        self._geometry = (convolve.stride, convolve.padding, convolve.dilation, convolve.groups)
        self._skips_padding = is_dilated(convolve)
        self._winograd = None
        if winograd.fits(convolve) and precision == torch.float32 and self.weight.device.type == "cpu":
            rectifies = type(activate) is nn.ReLU
            self._winograd = winograd.Winograd(self.weight, self.bias, rectifies)
            self.activate = nn.Identity() if rectifies else activate

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, c', H', W']."""
        stride, padding, dilation, groups = self._geometry
        x, weight = x.to(self.weight.dtype), self.weight
        if self._winograd is not None:
            return self.activate(self._winograd(x))
        if self._skips_padding:
            weight, padding = seen_taps(weight, dilation[0], x.shape[-2:])
        if self._fused is not None and x.device.type == "cpu" and has_fused_convolution(x.dtype):
            name, numbers = self._fused
            geometry = (list(padding), list(stride), list(dilation), groups)
            return torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *geometry, name, numbers, None)
        return self.activate(F.conv2d(x, weight, self.bias, stride, padding, dilation, groups))


@torch.no_grad()
def folded_weights(convolve: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias that give what the norm makes of the convolution's result."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    before = 0 if convolve.bias is None else convolve.bias
    return convolve.weight * scale[:, None, None, None], norm.bias + (before - norm.running_mean) * scale


def fold_block(block: nn.Sequential, precision: torch.dtype) -> nn.Sequential:
    """A block of convolution, norm and activation, and whatever stands before them."""
    *before, convolve, norm, activate = block
    assert isinstance(convolve, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return nn.Sequential(*before, FoldedConv2d(convolve, norm, activate, precision))


@torch.no_grad()
def absorb(block: nn.Sequential) -> None:
    """The same in place, for a block whose parts are used one by one: the norm becomes the identity."""
    convolve, norm = block[0], block[1]
    assert isinstance(convolve, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    weight, bias = folded_weights(convolve, norm)
    convolve.weight = nn.Parameter(weight, requires_grad=False)
    convolve.bias = nn.Parameter(bias, requires_grad=False)
    block[1] = nn.Identity()


class _Tracer(fx.Tracer):
    """Follows what holds convolutions; takes those and all else as they are.

    torch.fx sees every module of the process that is called meanwhile; what other threads call is none of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or not any(isinstance(part, nn.Conv2d) for part in m.modules())


def folded(module: nn.Module, precision: torch.dtype) -> nn.Module:
    """A module in evaluation mode with its norms folded where they follow a convolution directly.

    The module is taken apart; one that torch.fx cannot follow, or in which nothing can be folded, is
    given back as it is.
    """
    if any(part._forward_hooks or part._forward_pre_hooks for part in module.modules()):
        return module  # a trace would not run them when images come
    try:
        with _tracing:
            graph = _Tracer().trace(module)
    except Exception:  # control flow that depends on the images
        return module
    whole = fx.GraphModule(module, graph)
    joined = 0
    for node in list(graph.nodes):
        made = _joined(whole, node, precision)
        if made is None:
            continue
        joined += 1
        name = f"folded_{node.name}"
        whole.add_submodule(name, made)
        with graph.inserting_after(node):
            node.replace_all_uses_with(graph.call_module(name, node.args[0].args))
        before = node.args[0]
        graph.erase_node(node)
        graph.erase_node(before)
    if not joined:
        return module
    whole.delete_all_unused_submodules()
    graph.lint()
    whole.recompile()
    return whole.eval()


def _joined(whole: fx.GraphModule, node: fx.Node, precision: torch.dtype) -> FoldedConv2d | None:
    """A norm's node and that of the convolution before it, as one."""
    if node.op != "call_module" or not node.args or not isinstance(node.args[0], fx.Node):
        return None
    before = node.args[0]
    if before.op != "call_module" or len(before.users) != 1:
        return None
    norm, convolve = whole.get_submodule(str(node.target)), whole.get_submodule(str(before.target))
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or not norm.affine:
        return None
    if type(convolve) is not nn.Conv2d:
        return None
    if convolve.padding_mode != "zeros" or isinstance(convolve.padding, str):
        return None
    if not isinstance(getattr(norm, "drop", None), nn.Identity | None):
        return None
    return FoldedConv2d(convolve, norm, getattr(norm, "act", nn.Identity()), precision)


@lru_cache(4)
def has_fused_convolution(precision: torch.dtype) -> bool:
    """Whether oneDNN can do convolution and activation in one call here; tried once."""
    x = torch.ones(1, 2, 3, 3, dtype=precision).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.ones(2, 2, 1, 1, dtype=precision), torch.full((2,), -4, dtype=precision)
    geometry = ([0, 0], [1, 1], [1, 1], 1)
    try:
        found = torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *geometry, "hardtanh", [-1.0, 6.0], None)
    except Exception:  # a torch without oneDNN, or one that calls this otherwise
        return False
    return bool((found == -1).all())


def detached_copy(module: M) -> M:
    """A copy in evaluation mode that shares no tensor with the module."""
    return copy.deepcopy(module).eval().requires_grad_(False)
