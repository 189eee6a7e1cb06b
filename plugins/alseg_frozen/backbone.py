"""A timm network whose features are taken as they are: never trained, always in evaluation mode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.errors import AlsegError, UserMistake
from alseg.grid import resize
from alseg_pixelpick.weights import (
    channels_first,
    check_encoder,
    created,
    quiet_builder,
    refused,
    refused_size,
    tensors_digest,
    weights_digest,
)

REFERENCE = "reference"  # in a model file without the tensors: which these are
MOST = 65504.0  # the largest number of float16


class Backbone(nn.Module):
    """Images [B, 3, H, W] in [0, 1] -> features [B, D, h, w] on the grid of the finest chosen map, one after another.

    The image is scaled by `scale` and on to whole multiples of the patch or the coarsest stride, upwards, so that
    cells are spread evenly over it. `layers` None: a transformer's last block, of a pyramid of maps the last three.
    Maps of a transformer without a pyramid go through its last norm. Features are rounded to float16, in which
    they are kept. whole: whether its tensors are in the model's state; else a reference to the weights is.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, weights: str, layers: Sequence[int] | None = None, scale: float = 1.0, whole: bool = True
    ) -> None:
        super().__init__()
        self._strides, self._is_plain = _maps(name)
        self._layers, self._scale, self._whole = _chosen(name, self._strides, self._is_plain, layers), scale, whole
        self.body = self._made(name, weights)
        info = self.body.feature_info
        if self._is_plain:
            self._channels = [info[i].get("num_chs_norm", info[i]["num_chs"]) for i in self._layers]
        else:
            self._channels = list(info.channels())
        self.channels = sum(self._channels)
        self.register_buffer("mean", torch.tensor(self.body.pretrained_cfg["mean"]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.body.pretrained_cfg["std"]).view(1, 3, 1, 1))
        self.origin = {"encoder": name, "weights": weights, "sha256": weights_digest(self.body, weights)}
        self._digest: str | None = None
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Backbone:
        """Evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> float16 [B, D, h, w]."""
        images = (self._scaled(images) - self.mean) / self.std
        try:
            if self._is_plain:
                maps = self.body.forward_intermediates(
                    images, indices=list(self._layers), norm=True, output_fmt="NCHW", intermediates_only=True
                )
            else:
                maps = self.body(images)
        except AssertionError as error:  # a transformer of one image size
            raise refused_size(self.origin["encoder"], images, error) from error
        maps = [channels_first(each, count).float() for each, count in zip(maps, self._channels, strict=True)]
        size = max((each.shape[-2:] for each in maps), key=lambda shape: shape[0] * shape[1])
        joined = torch.cat([resize(each, (size[0], size[1])) for each in maps], 1)
        return joined.clamp(-MOST, MOST).half()

    def identity(self, device: str, precision: str) -> str:
        """What features depend on besides the image, as 32 hexadecimal digits."""
        if self._digest is None:
            self._digest = tensors_digest(super().state_dict().items())
        facts = (self.origin["encoder"], self._digest, self._layers, self._scale, device, precision)
        return hashlib.sha256(repr((*facts, torch.__version__, timm.__version__)).encode()).hexdigest()[:32]

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """All tensors; or, where the weights can be had again and are not to be stored, a reference to them."""
        if self._whole or self.origin["weights"] == "none":
            return super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        destination = {} if destination is None else destination
        words = json.dumps(self.origin).encode()
        destination[prefix + REFERENCE] = torch.frombuffer(bytearray(words), dtype=torch.uint8)
        return destination

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        self._digest = None
        words = state_dict.pop(prefix + REFERENCE, None)
        if words is not None:
            origin = json.loads(words.cpu().numpy().tobytes())
            body = self._made(self.origin["encoder"], origin["weights"])
            if weights_digest(body, origin["weights"]) != origin["sha256"]:
                raise AlsegError(f"the weights {origin['weights']} are no longer those that it was trained on")
            self.origin = origin
            tensors = {f"body.{key}": tensor for key, tensor in body.state_dict().items()}
            tensors |= {"mean": self.mean, "std": self.std}
            state_dict.update({prefix + key: tensor for key, tensor in tensors.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _scaled(self, images: Tensor) -> Tensor:
        """At whole multiples of the coarsest stride."""
        step = max(self._strides)
        wanted = [max(1.0, length * self._scale) for length in images.shape[-2:]]
        height, width = (-(-round(length) // step) * step for length in wanted)
        if (height, width) == (images.shape[-2], images.shape[-1]):
            return images
        shrinks = height < images.shape[-2] or width < images.shape[-1]
        return F.interpolate(images, (height, width), mode="bilinear", align_corners=False, antialias=shrinks)

    def _made(self, name: str, weights: str) -> Any:
        options = {"num_classes": 0} if self._is_plain else {"features_only": True, "out_indices": self._layers}
        return created(name, weights, partial(_of_any_size, **options))


def _of_any_size(name: str, **options: Any) -> Any:
    """A transformer takes images of any size where its family knows how."""
    try:
        return timm.create_model(name, dynamic_img_size=True, **options)
    except TypeError:
        return timm.create_model(name, **options)


def _maps(name: str) -> tuple[list[int], bool]:
    """The stride of each of a network's maps, and whether they are the blocks of a transformer without a pyramid."""
    check_encoder(name)
    try:
        with torch.device("meta"), quiet_builder():
            strides = list(timm.create_model(name, features_only=True).feature_info.reduction())
            if len(set(strides)) > 1 or len(strides) == 1:
                return strides, False
            blocks = timm.create_model(name, num_classes=0).feature_info
    except Exception as error:
        raise refused(name, "none", error) from error
    return [block["reduction"] for block in blocks], True


def _chosen(name: str, strides: Sequence[int], is_plain: bool, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The numbers of the wanted maps, in order."""
    count = len(strides)
    if layers is None:
        layers = (-1,) if is_plain else range(max(0, count - 3), count)
    if not layers or any(not -count <= layer < count for layer in layers):
        raise UserMistake(f"model.layers takes numbers from -{count} to {count - 1} for {name!r}, one at least.")
    return tuple(sorted({layer % count for layer in layers}))
