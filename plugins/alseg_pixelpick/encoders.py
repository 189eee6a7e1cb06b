"""timm encoders with their weights and input normalisation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg.names import nearest
from alseg_pixelpick.convolutions import quicken
from alseg_pixelpick.folding import folded

Choose = Callable[[Sequence[int]], Sequence[int]]  # strides, finest map first -> numbers of the wanted maps


def low_and_last(strides: Sequence[int]) -> Sequence[int]:
    """The map at stride 4 (or the finest there is) and the last map."""
    return max((i for i, stride in enumerate(strides) if stride <= 4), default=0), len(strides) - 1


def last_four(strides: Sequence[int]) -> Sequence[int]:
    """The last four maps, or as many as there are."""
    return range(max(0, len(strides) - 4), len(strides))


class Encoder(nn.Module):
    """A timm encoder that gives the maps which `choose` picks, with their `channels` and `strides`.

    `weights` is "default" (timm's hub), "none" or a file in timm's layout of this encoder.
    `origin` tells which weights these were and their SHA-256.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, weights: str, output_stride: int, choose: Choose = low_and_last) -> None:
        super().__init__()
        self.body, self._picked = _body(name, weights, output_stride, choose)
        quicken(self.body)
        info = self.body.feature_info
        self.channels = tuple(info.channels()[i] for i in self._picked)
        self.strides = tuple(info.reduction()[i] for i in self._picked)
        config = self.body.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1), persistent=False)
        self.origin = {"encoder": name, "weights": weights, "sha256": _digest(self.body, weights)}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] in [0, 1] -> the chosen maps."""
        try:
            maps = self.body((images - self.mean) / self.std)
        except AssertionError as error:  # a transformer of one image size
            name, size = self.origin["encoder"], "x".join(map(str, images.shape[-2:]))
            reason = str(error).rstrip(".")
            raise UserMistake(f"The encoder {name!r} cannot take images of {size}: {reason}.") from error
        chosen = zip(self._picked, self.channels, strict=True)
        return tuple(_channels_first(maps[i], channels) for i, channels in chosen)

    def fold(self, precision: torch.dtype) -> None:
        """Fold the batch norms away, in evaluation mode and for good; weights in this precision."""
        self.body = folded(self.body, precision)


def _body(name: str, weights: str, stride: int, choose: Choose) -> tuple[Any, list[int]]:
    if not timm.is_model(name.split(".")[0]):
        known = timm.list_models()
        raise UserMistake(f"timm has no encoder {name!r}{nearest(name, known)}.")
    # A bare network tells which of its maps are wanted without reading any weights.
    with torch.device("meta"):
        info = _create(name, stride).feature_info
    wanted = choose(info.reduction())
    kept = sorted(set(wanted))
    stored = None if weights in ("none", "default") else _read(name, weights)
    body = _create(name, stride, weights, stored, out_indices=tuple(kept))
    if stored is not None:
        moved = {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in stored.items()}
        _check_loaded(name, weights, body, _create(name, stride, weights, moved, out_indices=tuple(kept)))
    return body, [kept.index(i) for i in wanted]


def _channels_first(features: Tensor, channels: int) -> Tensor:
    """Some families give [B, H, W, C]."""
    if features.shape[1] != channels and features.shape[-1] == channels:
        return features.permute(0, 3, 1, 2)
    return features


def _read(name: str, weights: str) -> dict[str, Tensor]:
    """The tensors of a weights file, in float32 where they are numbers; no code in it is run."""
    path = Path(weights)
    if not path.is_file():
        raise UserMistake(f"No weights file {weights}: give --weights FILE, none or default.")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _refused(name, weights, error) from error
    for wrapper in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    tensors = {key: value for key, value in dict(found).items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserMistake(f"The weights {weights} do not fit the encoder {name!r}: the file holds no tensors.")
    return {
        key.removeprefix("module."): tensor.float() if tensor.is_floating_point() else tensor
        for key, tensor in tensors.items()
    }


def _check_loaded(name: str, weights: str, body: nn.Module, moved: nn.Module) -> None:
    """Every number of the body came from the file: with 1 added to all in the file, it has 1 more."""
    other = moved.state_dict()
    missing = [
        key
        for key, tensor in body.state_dict().items()
        if tensor.is_floating_point() and not torch.allclose(tensor + 1, other[key], rtol=1e-3, atol=1e-3)
    ]
    if missing:
        lacks = f"{missing[0]} and {len(missing) - 1} more tensors" if len(missing) > 1 else missing[0]
        raise UserMistake(f"The weights {weights} do not fit the encoder {name!r}: they lack {lacks}.")


def _create(
    name: str, stride: int, weights: str = "none", stored: Mapping[str, Tensor] | None = None, **options: Any
) -> Any:
    """The encoder, dilated to the output stride where its family knows how; `stored` are the weights' tensors."""
    options |= {"features_only": True, "pretrained": weights != "none"}
    if stored is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": dict(stored)}
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
