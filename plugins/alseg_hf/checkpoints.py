"""Checkpoints of transformers: their configuration, weights and input normalisation, from a folder or the hub."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING,
    MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
)

from alseg.calling import first_line
from alseg.errors import UserMistake
from alseg.paths import expanded

T = TypeVar("T")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NOT_SEMANTIC = ("detr", "oneformer", "videomt")  # universal, but made for panoptic scenes, other tasks, or videos
VOLATILE = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "id2label", "label2id", "architectures")


class Normalisation(NamedTuple):
    """(image - mean) / std of images in [0, 1]; bgr: with the channels in reverse order before."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False


class Checkpoint:
    """A checkpoint by the name of its folder or of its repository on the hub.

    What lies in the local cache is taken from there, without asking the hub. Raises UserMistake where it cannot be
    had, or is no network for semantic segmentation.
    """

    def __init__(self, name: str, revision: str) -> None:
        folder = expanded(name)
        self.name, self._revision = name, revision
        self._place = str(folder.absolute()) if folder.is_dir() else name
        self._is_folder = folder.is_dir()

    def configuration(self, classes: int) -> Any:
        """The network's configuration for so many classes, without an auxiliary head."""
        try:
            config = self._had(transformers.AutoConfig.from_pretrained)
        except (OSError, ValueError, KeyError) as error:
            raise UserMistake(self._refusal(error)) from error
        kind = config.model_type
        if type(config) not in _mapping(config) or kind in NOT_SEMANTIC:
            raise UserMistake(
                f"The checkpoint {self.name} is a {kind!r}, which transformers has no semantic segmentation network "
                "for: choose one of those that `-o model.checkpoint` takes (docs/huggingface.md)."
            )
        return prepared(config, classes)

    def network(self, config: Any, keep_classifier: bool = False) -> nn.Module:
        """The network with the checkpoint's weights, from safetensors alone, in float32.

        keep_classifier: refuse where the checkpoint has other classes or none.
        """
        maker = _mapping(config)[type(config)]
        if isinstance(maker, tuple):
            maker = maker[0]
        options = {"config": config, "use_safetensors": True, "ignore_mismatched_sizes": True}

        def load(*arguments: Any, **named: Any) -> Any:
            return maker.from_pretrained(*arguments, **named, **options, output_loading_info=True)

        try:
            net, info = self._had(load)
        except (OSError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            if "safetensors" in str(error):
                reason = "there is no model.safetensors, and pickled weights, which can run code, are never loaded"
            raise UserMistake(
                f"The weights of the checkpoint {self.name} cannot be loaded: {reason}; -o model.weights=none starts "
                "from noise."
            ) from error
        self._check(net, info, keep_classifier)
        return net.float()

    def normalisation(self) -> Normalisation:
        """What its image processor does; ImageNet's where it has none."""
        try:
            made = self._had(transformers.AutoImageProcessor.from_pretrained)
        except (OSError, ValueError, KeyError, ImportError):
            return Normalisation(*IMAGENET)
        scale = 255 * float(made.rescale_factor) if getattr(made, "do_rescale", True) else 255.0
        mean, std = getattr(made, "image_mean", None), getattr(made, "image_std", None)
        if not getattr(made, "do_normalize", False) or mean is None or std is None:
            mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        bgr = bool(getattr(made, "do_flip_channel_order", False))
        return Normalisation(_per_unit(mean, scale), _per_unit(std, scale), bgr)

    def commit(self) -> str:
        """The hub's commit that the files are of; empty for a folder."""
        if self._is_folder:
            return ""
        path = transformers.utils.cached_file(
            self._place, "config.json", revision=self._revision, local_files_only=True
        )
        return Path(str(path)).parent.name

    def _had(self, get: Callable[..., T]) -> T:
        options: dict[str, Any] = {"trust_remote_code": False, "revision": self._revision}
        with quiet():
            try:
                return get(self._place, local_files_only=True, **options)
            except OSError:
                if self._is_folder:
                    raise
            return get(self._place, **options)

    def _check(self, net: nn.Module, info: Mapping[str, Any], keep_classifier: bool) -> None:
        from alseg_hf.split import backbone_of

        part = backbone_of(net)
        wrong = sorted([*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])])
        lacking = [name for name in wrong if part is not None and name.startswith(f"{part}.")]
        if lacking:
            more = f" and {len(lacking) - 1} more tensors" if len(lacking) > 1 else ""
            raise UserMistake(f"The weights of the checkpoint {self.name} lack the backbone's {lacking[0]}{more}.")
        new = [name for name in wrong if name.rpartition(".")[0] in class_layers(net)]
        if keep_classifier and new:
            raise UserMistake(
                f"The checkpoint {self.name} has no classifier of {net.config.num_labels} classes to keep: leave "  # type: ignore[union-attr]
                "-o model.classifier=stored out."
            )

    def _refusal(self, error: Exception) -> str:
        if "trust_remote_code" in str(error):
            return f"The checkpoint {self.name} brings code of its own, which is never run: choose another."
        if self._is_folder:
            return f"The folder {self.name} holds no configuration of transformers: {first_line(error)}."
        return (
            f"The checkpoint {self.name} could not be had: there is no such folder, it is not in the local cache, and "
            f"the hub says: {first_line(error)}."
        )


def prepared(config: Any, classes: int) -> Any:
    """A configuration for so many classes; what it has besides the network that is used is left out."""
    config = copy.deepcopy(config)
    config.num_labels = classes
    config.return_dict = True
    for name in ("use_auxiliary_head", "use_pretrained_backbone"):
        if hasattr(config, name):
            setattr(config, name, False)
    return config


def built(config: Any) -> nn.Module:
    """A network from noise."""
    maker = _mapping(config)[type(config)]
    with quiet():
        return (maker[0] if isinstance(maker, tuple) else maker)(config)


def described(net: nn.Module) -> dict[str, Any]:
    """A network's configuration as JSON holds it, with the number of classes."""
    config: Any = net.config
    found = {key: value for key, value in config.to_dict().items() if key not in VOLATILE}
    return json.loads(json.dumps({**found, "num_labels": config.num_labels}, default=str))


def configuration_of(found: Mapping[str, Any]) -> Any:
    """The configuration that `described` gave."""
    kind = transformers.CONFIG_MAPPING[found["model_type"]]
    with quiet():
        return prepared(kind.from_dict({k: v for k, v in found.items() if k != "num_labels"}), found["num_labels"])


def class_layers(net: nn.Module) -> tuple[str, ...]:
    """The layers whose size is the number of classes', by comparing networks of different numbers of them."""
    return _class_layers(json.dumps(described(net), sort_keys=True))


@lru_cache(maxsize=64)
def _class_layers(description: str) -> tuple[str, ...]:
    found, shapes = json.loads(description), []
    for more in (0, 1):
        config = configuration_of({**found, "num_labels": found["num_labels"] + more})
        with torch.device("meta"):
            shapes.append({name: p.shape for name, p in built(config).named_parameters()})
    return tuple(sorted({name.rpartition(".")[0] for name, shape in shapes[0].items() if shape != shapes[1][name]}))


@torch.no_grad()
def start_afresh(net: nn.Module) -> None:
    """Draw the classes' layers anew, as transformers draws them."""
    config: Any = net.config
    for name in class_layers(net):
        layer: Any = net.get_submodule(name)
        nn.init.normal_(layer.weight, std=getattr(config, "initializer_range", 0.02))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def digest(net: nn.Module) -> str:
    """SHA-256 of the names and numbers of all but the classes' layers."""
    found, new = hashlib.sha256(), tuple(f"{name}." for name in class_layers(net))
    for name, tensor in net.state_dict().items():
        if not name.startswith(new):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _mapping(config: Any) -> Any:
    semantic = type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    return MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING if semantic else MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING


def _per_unit(values: Sequence[float], scale: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) / scale for value in values)
    return red, green, blue


@contextmanager
def quiet() -> Iterator[None]:
    """transformers says nothing inside that is not an error, and shows no bars."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
