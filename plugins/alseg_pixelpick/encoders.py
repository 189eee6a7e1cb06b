"""timm encoders with their weights and input normalisation."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg.names import nearest


class Encoder(nn.Module):
    """A timm encoder that gives one low- and one high-level map.

    `weights` is "default" (timm's hub), "none" or a file in timm's layout of this encoder.
    `origin` tells which weights these were and their SHA-256.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str, output_stride: int) -> None:
        super().__init__()
        self.body, self.channels, picked = _body(name, weights, output_stride)
        self._low, self._high = picked
        config = self.body.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        self.origin = {"encoder": name, "weights": weights, "sha256": _digest(self.body, weights)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] in [0, 1] -> the map at stride 4 (or the finest there is) and the last map."""
        try:
            maps = self.body((images - self.mean) / self.std)
        except AssertionError as error:  # a transformer of one image size
            size = "x".join(map(str, images.shape[-2:]))
            raise UserMistake(
                f"The encoder {self.origin['encoder']!r} cannot take images of {size}: {error}."
            ) from error
        low, high = maps[self._low], maps[self._high]
        return _channels_first(low, self.channels[0]), _channels_first(high, self.channels[1])


def _body(name: str, weights: str, stride: int) -> tuple[Any, tuple[int, int], tuple[int, int]]:
    if not timm.is_model(name.split(".")[0]):
        known = timm.list_models()
        raise UserMistake(f"timm has no encoder {name!r}{nearest(name, known)}.")
    # A bare network tells which of its maps are wanted without reading any weights.
    with torch.device("meta"):
        info = _create(name, stride).feature_info
    reductions = info.reduction()
    low = max((i for i, r in enumerate(reductions) if r <= 4), default=0)
    wanted = (low, len(reductions) - 1)
    body = _create(name, stride, weights, out_indices=wanted)
    if weights not in ("none", "default"):
        _check_loaded(name, weights, body, _create(name, stride, weights, out_indices=wanted))
    channels = body.feature_info.channels()
    return body, (channels[0], channels[-1]), (0, len(channels) - 1)


def _channels_first(features: Tensor, channels: int) -> Tensor:
    """Some families give [B, H, W, C]."""
    if features.shape[1] != channels and features.shape[-1] == channels:
        return features.permute(0, 3, 1, 2)
    return features


def _check_loaded(name: str, weights: str, body: nn.Module, again: nn.Module) -> None:
    """What the file does not hold starts from noise, and so differs when it is built a second time."""
    other = again.state_dict()
    missing = [key for key, tensor in body.state_dict().items() if not torch.equal(tensor, other[key])]
    if missing:
        lacks = f"{missing[0]} and {len(missing) - 1} more tensors"
        raise UserMistake(f"The weights {weights} do not fit the encoder {name!r}: they lack {lacks}.")


def _create(name: str, stride: int, weights: str = "none", **options: Any) -> Any:
    """The encoder, dilated to the output stride where its family knows how."""
    options |= {"features_only": True, "pretrained": weights != "none"}
    if weights not in ("none", "default"):
        path = Path(weights)
        if not path.is_file():
            raise UserMistake(f"No weights file {weights}: give --weights FILE, none or default.")
        options["pretrained_cfg_overlay"] = {"file": str(path)}
    # timm warns of the classifier's weights, which are left out on purpose
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        try:
            return timm.create_model(name, output_stride=stride, **options)
        except (NotImplementedError, AssertionError, TypeError):
            return timm.create_model(name, **options)  # a family that cannot be dilated
    except Exception as error:
        raise _refused(name, weights, error) from error
    finally:
        logger.setLevel(level)


def _refused(name: str, weights: str, error: Exception) -> UserMistake:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if weights == "none":
        return UserMistake(f"timm cannot build the encoder {name!r}: {reason}.")
    if weights == "default":
        advice = "give --weights FILE, or --weights none to start from noise"
        return UserMistake(f"The weights of {name!r} could not be had from timm's hub ({reason}): {advice}.")
    if isinstance(error, SafetensorError):
        reason = f"not a whole safetensors file: {reason}"
    elif not isinstance(error, RuntimeError):
        reason = "the file is neither safetensors nor torch's tensors alone"
    return UserMistake(f"The weights {weights} do not fit the encoder {name!r}: {reason}.")


def _digest(body: nn.Module, weights: str) -> str:
    """SHA-256 of the weights' file, or of the tensors that came from the hub."""
    digest = hashlib.sha256()
    if weights == "none":
        return ""
    if weights != "default":
        with open(weights, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    for name, tensor in body.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
