"""What a network of transformers can be given and how it is cut, found by trying it once."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from alseg.engine.device import mode
from alseg.errors import UserMistake
from alseg.grid import resize
from alseg_hf.split import backbone_of, replayed, result_of

STRIDE = 32  # of a network that halves its maps five times
PATCH = 8  # from here on a patch is a plain vision transformer's, and its only stride
SCORE_FLOOR = 1e-6


class Layout(NamedTuple):
    """Which image sizes a network takes: multiples of `multiple`, of any shape, square, or of `fixed` size alone."""

    multiple: int
    shape: Literal["any", "square", "fixed"]
    fixed: tuple[int, int]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What an image of H x W is resized to, so that the cells of every map are spread evenly over it."""
        if self.shape == "fixed":
            return self.fixed
        if self.shape == "square":
            height = width = round(math.sqrt(height * width))
        return self.rounded(height), self.rounded(width)

    def rounded(self, side: int) -> int:
        """Up to a multiple."""
        return -(-side // self.multiple) * self.multiple


class Cut(NamedTuple):
    """A network's layout, the backbone's name where it can be cut after it, and the head's where it upsamples."""

    layout: Layout
    backbone: str | None
    head: str | None


def called(net: nn.Module, images: Tensor) -> Any:
    """The network's outputs for normalised images; positions are interpolated where it is asked for that."""
    takes = inspect.signature(net.forward).parameters
    more = {"interpolate_pos_encoding": True} if "interpolate_pos_encoding" in takes else {}
    return net(pixel_values=images, **more)


def logits_of(outputs: Any) -> Tensor:
    """Logits float32 [B, C, h, w] of what a network gives.

    A universal network gives masks and classes of queries. Their semantic inference adds up, at each pixel, a
    query's class probabilities times its mask (Cheng et al., NeurIPS 2021, section 3.4); the logits are the
    logarithm of that, so that their softmax is the normalised sum and cross-entropy can train it.
    """
    if isinstance(outputs, Tensor):
        return outputs.float()
    if "logits" in outputs:
        return outputs["logits"].float()
    masks, classes = outputs["masks_queries_logits"].float(), outputs["class_queries_logits"].float()
    if torch.compiler.is_compiling():  # exports are in float32 throughout
        return _semantic(masks, classes)
    with torch.autocast(masks.device.type, enabled=False):
        return _semantic(masks, classes)


def _semantic(masks: Tensor, classes: Tensor) -> Tensor:
    """Queries' mask logits [B, Q, h, w] and class logits [B, Q, C + 1], the last "no object" -> [B, C, h, w]."""
    scores = torch.einsum("bqc,bqhw->bchw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    return (scores + SCORE_FLOOR).log()


@torch.no_grad()
def examined(net: nn.Module, classes: int) -> Cut:
    """Find a network's layout and cut by trying it; UserMistake where it gives no map of class scores."""
    with mode(net, False):
        tried: list[str] = []
        for layout in _layouts(net):
            size = layout.size(2 * layout.multiple, 3 * layout.multiple)
            images = torch.linspace(-1, 1, 3 * size[0] * size[1]).view(1, 3, *size)
            try:
                wanted = logits_of(called(net, images))
            except (RuntimeError, ValueError, AssertionError, TypeError, KeyError) as error:
                tried.append(str(error).splitlines()[0] if str(error) else type(error).__name__)
                continue
            even = wanted.dim() == 4 and wanted.shape[2] * size[1] == wanted.shape[3] * size[0]
            if even and wanted.shape[1] == classes:
                return Cut(layout, _backbone(net, images, wanted), _head(net, images, wanted))
            tried.append(f"it gives {list(wanted.shape)} for an image of {size[0]}x{size[1]}")
    raise UserMistake(f"The network {type(net).__name__} cannot be used as a model: {tried[-1].rstrip('.')}.")


def _layouts(net: nn.Module) -> Iterator[Layout]:
    config: Any = net.config
    parts = [config, getattr(config, "backbone_config", None)]
    patch = _largest(next((p for part in parts if (p := getattr(part, "patch_size", None))), 0))
    # a pooled map of patches must have a whole number of them as well
    halves = any(isinstance(module, nn.MaxPool2d) for module in net.modules())
    multiple = STRIDE if patch < PATCH else patch * (2 if halves else 1)
    stated = next((s for part in parts if (s := getattr(part, "image_size", None))), STRIDE)
    height, width = (stated, stated) if isinstance(stated, int) else tuple(stated)
    for shape in ("any", "square", "fixed"):
        yield Layout(multiple, shape, (int(height), int(width)))


def _largest(patch: Any) -> int:
    return max(patch) if isinstance(patch, Sequence) else int(patch)


def _backbone(net: nn.Module, images: Tensor, wanted: Tensor) -> str | None:
    """The backbone's name where decoding from its outputs alone, twice, gives what the whole network does."""
    name = backbone_of(net)
    if name is None:
        return None
    part = net.get_submodule(name)
    outputs = result_of(part, lambda: called(net, images))
    unusable = torch.tensor(torch.nan).expand(images.shape)  # what looks at the images again is found out
    for _ in range(2):
        found = logits_of(replayed(part, outputs, lambda: called(net, unusable)))
        if not _equal(found, wanted):
            return None
    return name


def _head(net: nn.Module, images: Tensor, wanted: Tensor) -> str | None:
    """The head's name where the network gives its map enlarged, as whoever takes the map does as well."""
    head = getattr(net, "decode_head", None)
    if not isinstance(head, nn.Module) or wanted.shape[-2:] != images.shape[-2:]:
        return None
    own = result_of(head, lambda: called(net, images))
    if not isinstance(own, Tensor) or own.dim() != 4 or own.shape[-1] >= wanted.shape[-1]:
        return None
    enlarged = resize(own, (wanted.shape[-2], wanted.shape[-1]))
    return "decode_head" if _equal(enlarged, wanted) else None


def _equal(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 1e-4 * wanted.abs().max())
