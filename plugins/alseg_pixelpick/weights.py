"""timm encoders with their weights: read from a file without running code in it, checked to be all there, and named."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from alseg.calling import first_line
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.paths import expanded


def check_encoder(name: str) -> None:
    """UserMistake where timm has no encoder of this name."""
    if not timm.is_model(name.split(".")[0]):
        raise UserMistake(f"timm has no encoder {name!r}{nearest(name, timm.list_models())}.")


def created(name: str, weights: str, make: Callable[..., Any]) -> Any:
    """What `make(name, **options)`, a form of timm.create_model, gives with the weights; of a file's, all are in it."""

    def make_of(stored: Mapping[str, Tensor] | None) -> Any:
        options: dict[str, Any] = {"pretrained": weights != "none"}
        if stored is not None:
            options["pretrained_cfg_overlay"] = {"state_dict": dict(stored)}
        try:
            with quiet_builder():
                return make(name, **options)
        except Exception as error:
            raise refused(name, weights, error) from error

    stored = None if weights in ("none", "default") else read_weights(name, weights)
    body = make_of(stored)
    if stored is not None:
        check_loaded(name, weights, body, make_of(moved_by_one(stored)))
    return body


def refused_size(name: str, images: Tensor, error: AssertionError) -> UserMistake:
    """What is said where an encoder, a transformer of one image size, does not take images [..., H, W]."""
    size, reason = "x".join(map(str, images.shape[-2:])), str(error).rstrip(".")
    return UserMistake(f"The encoder {name!r} cannot take images of {size}: {reason}.")


def channels_first(features: Tensor, channels: int) -> Tensor:
    """Some families give [B, H, W, C]."""
    if features.shape[1] != channels and features.shape[-1] == channels:
        return features.permute(0, 3, 1, 2)
    return features


def read_weights(name: str, weights: str) -> dict[str, Tensor]:
    """The tensors of a weights file, in float32 where they are numbers; no code in it is run."""
    path = expanded(weights)
    if not path.is_file():
        raise UserMistake(f"No weights file {weights}: give --weights FILE, none or default.")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise refused(name, weights, error) from error
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


def moved_by_one(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with 1 added to each number, for `check_loaded`."""
    return {key: tensor + 1 if tensor.is_floating_point() else tensor for key, tensor in stored.items()}


def check_loaded(name: str, weights: str, body: nn.Module, moved: nn.Module) -> None:
    """Every number of the body came from the file: with 1 added to all in the file, it has 1 more."""
    other = moved.state_dict()
    missing = [
        key
        for key, tensor in body.state_dict().items()
        if tensor.is_floating_point() and not torch.allclose(tensor + 1, other[key], rtol=1e-3, atol=1e-3)
    ]
    if missing:
        raise UserMistake(f"The weights {weights} do not fit the encoder {name!r}: they lack {_counted(missing)}.")


def _counted(names: Sequence[str]) -> str:
    """The first of several tensors, and how many more there are."""
    more = len(names) - 1
    return names[0] + (f" and {more} more tensor{'s' if more > 1 else ''}" if more else "")


def _said(error: Exception) -> str:
    """What an error says in one line; of torch's list of what does not fit, the first of its kind and a count."""
    text = str(error)
    for kind, words in (("Missing", "they lack"), ("Unexpected", "the encoder has no")):
        listed = re.search(rf"^\s*{kind} key\(s\) in state_dict: (.*)$", text, re.MULTILINE)
        if listed is not None:
            names = re.findall('"([^"]+)"', listed[1])
            return f"{words} {_counted(names)}"
    shapes = re.findall(r"size mismatch for (\S+): .*?Size\(\[(.*?)\]\).*?Size\(\[(.*?)\]\)", text)
    if shapes:
        (name, theirs, wanted), more = shapes[0], len(shapes) - 1
        rest = f", and so on with {more} more" if more else ""
        return f"their {name} is of shape [{theirs}], the encoder's of [{wanted}]{rest}"
    return first_line(error)


def refused(name: str, weights: str, error: Exception, library: str = "timm") -> UserMistake:
    """What is said where an encoder with these weights cannot be built."""
    reason = _said(error)
    if weights == "none":
        return UserMistake(f"{library} cannot build the encoder {name!r}: {reason}.")
    if weights == "default":
        advice = "give --weights FILE, or --weights none to start from noise"
        return UserMistake(f"The weights of {name!r} could not be had from {library}'s hub ({reason}): {advice}.")
    if isinstance(error, SafetensorError):
        reason = f"not a whole safetensors file: {reason}"
    elif not isinstance(error, RuntimeError):
        reason = "the file is neither safetensors nor torch's tensors alone"
    return UserMistake(f"The weights {weights} do not fit the encoder {name!r}: {reason}.")


def weights_digest(body: nn.Module, weights: str) -> str:
    """SHA-256 of the weights' file, or of the tensors that came from the hub."""
    if weights == "none":
        return ""
    if weights != "default":
        with open(expanded(weights), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return tensors_digest(body.state_dict().items())


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of names and numbers."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def quiet_builder() -> Iterator[None]:
    """timm warns of the classifier's weights, which are left out on purpose; inside it does not."""
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
