"""A network of transformers as a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.errors import UserMistake
from alseg_hf.checkpoints import Normalisation, built, class_layers, configuration_of, described
from alseg_hf.layout import Cut, called, examined, logits_of
from alseg_hf.split import given_to, in_float32, replayed, result_of

CUTS: dict[str, Cut] = {}  # by configuration: a run builds its model anew in each round


class Features(NamedTuple):
    """What decoding needs: the backbone's outputs, or where there is no cut the images [B, 3, h, w] themselves.

    shape: [B, 3, h, w] of what the network was given. whole: whether there is no cut.
    """

    outputs: Any
    shape: torch.Size
    whole: bool


class TransformersModel(nn.Module):
    """A semantic segmentation network of transformers, cut after its backbone.

    net: None where its configuration could not be had, which `missing` says; it is then built when its weights
    are loaded, whose state holds the configuration. The network sees images at a size that it takes (`Layout`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module | None,
        classes: int,
        normalisation: Normalisation,
        origin: Mapping[str, str],
        missing: UserMistake | None = None,
    ) -> None:
        super().__init__()
        self.origin = dict(origin)
        self._classes, self._missing = classes, missing
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.ones(1, 3, 1, 1), persistent=False)
        self._normalise(normalisation)
        self.net: nn.Module | None = None
        if net is not None:
            self._take(net)

    def encode(self, images: Tensor) -> Features:
        """[B, 3, H, W] in [0, 1] -> what the backbone gives."""
        net = self._network()
        own = (images.shape[-2], images.shape[-1])
        size = self._cut.layout.size(*own)
        if size != own:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        if self._normalisation.bgr:
            images = images.flip(1)
        images = (images - self.mean) / self.std
        # what traces a network for an export does not get over a pass that ends half-way
        if self._cut.backbone is None or torch.compiler.is_compiling():
            return Features(images, images.shape, whole=True)
        outputs = result_of(net.get_submodule(self._cut.backbone), lambda: called(net, images))
        return Features(outputs, images.shape, whole=False)

    def decode(self, features: Features) -> Tensor:
        """Features -> logits [B, C, h, w], float32, on the grid that the network gives them on."""
        net = self._network()
        # rounded logits would tie utilities
        with in_float32([net.get_submodule(name) for name in self._layers]):
            if self._cut.head is not None and not torch.compiler.is_compiling():
                return logits_of(result_of(net.get_submodule(self._cut.head), lambda: self._decoded(features)))
            return logits_of(self._decoded(features))

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, h, w]."""
        return self.decode(self.encode(images))

    @property
    def embedding(self) -> Any:
        """`embedding(features)`: what the classifier sees, [B, D, h, w]; there is none where it sees queries."""
        if len(self._layers) != 1 or not isinstance(self._network().get_submodule(self._layers[0]), nn.Conv2d):
            raise AttributeError("embedding")
        return self._seen

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The backbone and the rest; without a cut, everything and the layers that are made for the classes."""
        net = self._network()
        parts = self._layers if self._cut.backbone is None else [self._cut.backbone]
        named = {id(p) for name in parts for p in net.get_submodule(name).parameters()}
        inside = [p for p in net.parameters() if id(p) in named]
        outside = [p for p in net.parameters() if id(p) not in named]
        encoder, decoder = (outside, inside) if self._cut.backbone is None else (inside, outside)
        return {"encoder": encoder, "decoder": decoder}

    def get_extra_state(self) -> Tensor:
        """The network's configuration and its input's normalisation, JSON as uint8."""
        state = {"configuration": described(self._network()), "normalisation": self._normalisation._asdict()}
        return torch.frombuffer(bytearray(json.dumps(state, sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Build the network that the weights belong to, where this one is another."""
        found = json.loads(bytes(state.tolist()))
        self._normalise(Normalisation(**found["normalisation"]))
        if self.net is None or described(self.net) != found["configuration"]:
            net = built(configuration_of(found["configuration"]))
            # as the core lays out every model: another layout rounds differently
            self._take(net.to(memory_format=torch.channels_last))

    def _take(self, net: nn.Module) -> None:
        # before the module moves: what it is tried on lies on the CPU
        key = json.dumps(described(net), sort_keys=True)
        if key not in CUTS:
            CUTS[key] = examined(net.cpu(), self._classes)
        self._cut = CUTS[key]
        self._layers = class_layers(net)
        self.net = net.to(self.mean.device)

    def _normalise(self, normalisation: Normalisation) -> None:
        self._normalisation = normalisation
        self.mean.copy_(torch.tensor(normalisation.mean).view(1, 3, 1, 1))
        self.std.copy_(torch.tensor(normalisation.std).view(1, 3, 1, 1))

    def _network(self) -> nn.Module:
        if self.net is None:
            raise self._missing or UserMistake("The model has no configuration.")
        return self.net

    def _decoded(self, features: Features) -> Any:
        net = self._network()
        if features.whole or self._cut.backbone is None:
            return called(net, features.outputs)
        nothing = torch.zeros((), device=self.mean.device).expand(features.shape)
        part = net.get_submodule(self._cut.backbone)
        return replayed(part, features.outputs, lambda: called(net, nothing))

    def _seen(self, features: Features) -> Tensor:
        layer = self._network().get_submodule(self._layers[0])
        return given_to(layer, lambda: self._decoded(features))
