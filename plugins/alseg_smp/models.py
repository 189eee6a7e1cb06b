"""A network of segmentation-models-pytorch as a `Model`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg.calling import first_line
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg_pixelpick.weights import check_loaded, moved_by_one, quiet_builder, read_weights, refused, weights_digest

LIBRARY = "segmentation-models-pytorch"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Mean and standard deviation by how the names of the library's own encoders begin, where they are not ImageNet's.
# The library has them beside the weights on its hub alone.
NORMALISATION = {
    "inception": HALVES,
    "xception": HALVES,
    "timm-tf_efficientnet_lite": HALVES,
    "dpn": ((124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
}
LEAST_CELLS = {"pan": 8}  # its attention halves the coarsest map three times


class Features(NamedTuple):
    """An encoder's maps, finest first, a transformer's tokens of no place, and the size (H, W) that it saw.

    places: for each map that the decoder is to be given, which of `maps` it is; None: one without content, of
    `width` channels.
    """

    maps: tuple[Tensor, ...]
    tokens: tuple[Tensor | None, ...]
    size: tuple[int, int]
    places: tuple[tuple[int | None, int], ...]


class SegmentationNetwork(nn.Module):
    """Encoder, decoder and head of a network of the library, without the head's upsampling.

    `encode` resizes the images to whole multiples of the encoder's stride, upwards, so that the cells of every
    map are spread evenly over the image; `decode` gives float32 logits on the decoder's own grid. least: cells
    that the coarsest map has along a side at least, to which smaller images are enlarged.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, mean: Any, std: Any, origin: Mapping[str, str], least: int = 1) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        head = getattr(network.segmentation_head, "head", None)  # DPT's, which ends with its classifier
        self.neck = nn.Identity() if head is None else head[:-1]
        self.classifier = network.segmentation_head[0] if head is None else head[-1]
        self.origin = dict(origin)
        # stored with the weights: a model that is built to take stored ones may not know them
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self._stride, self._least = int(self.encoder.output_stride), least
        self._gives_tokens = hasattr(self.encoder, "has_prefix_tokens")

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The pretrained part and the part that starts from noise."""
        encoder = list(self.encoder.parameters())
        known = {id(parameter) for parameter in encoder}
        return {"encoder": encoder, "decoder": [p for p in self.parameters() if id(p) not in known]}

    def encode(self, images: Tensor) -> Features:
        """[B, 3, H, W] in [0, 1] -> the encoder's maps."""
        cells = [max(self._least, -(-length // self._stride)) for length in images.shape[-2:]]
        size = (cells[0] * self._stride, cells[1] * self._stride)
        if size != (images.shape[-2], images.shape[-1]):
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
        images = (images - self.mean) / self.std
        try:
            found = self.encoder(images)
        except AssertionError as error:  # a transformer of one image size
            name, reason = self.origin["encoder"], str(error).rstrip(".")
            raise UserMistake(f"The encoder {name!r} cannot take images of {size[0]}x{size[1]}: {reason}.") from error
        given, tokens = found if self._gives_tokens else (found, ())
        maps: list[Tensor] = []
        places: list[tuple[int | None, int]] = []
        for each in given:
            # the image itself and a place holder for a map that there is not: no decoder reads what is in them
            empty = each is images or each.shape[1] == 0
            places.append((None if empty else len(maps), each.shape[1]))
            maps += [] if empty else [each]
        return Features(tuple(maps), tuple(tokens), size, tuple(places))

    def embedding(self, features: Features) -> Tensor:
        """Features -> what the classifier sees, [B, D, h, w]."""
        given = []
        for level, (place, width) in enumerate(features.places):
            if place is not None:
                given.append(features.maps[place])
                continue
            like = features.maps[0]
            height, across = features.size[0] >> level, features.size[1] >> level
            given.append(like.new_zeros(like.shape[0], width, height, across))
        return self.neck(self.decoder(given, list(features.tokens)) if self._gives_tokens else self.decoder(given))

    def decode(self, features: Features) -> Tensor:
        """Features -> logits [B, C, h, w], float32, on the decoder's grid."""
        x = self.embedding(features)
        # float32 whatever the precision around it: rounded logits would tie utilities
        with torch.autocast(x.device.type, enabled=False):
            return self.classifier(x.float())

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] in [0, 1] -> logits [B, C, h, w]."""
        return self.decode(self.encode(images))


def build(architecture: str, classes: int, encoder: str, weights: str, options: Mapping[str, Any]) -> Any:
    """A network of the library with its encoder's weights: "default" (the hub), "none" or a file.

    A name that the library has not is timm's, with its prefix tu- or without. A file is in timm's layout for timm's
    encoders, else in the library's own.
    """
    encoder = _known(encoder)
    of_timm = encoder.startswith("tu-")
    options = {**options, "classes": classes}
    if architecture == "dpt":
        options |= {"dynamic_img_size": True, "num_classes": 0}
    try:
        network = _create(architecture, encoder, options)
    except Exception as error:
        raise UserMistake(
            f"smp-{architecture} cannot be built on the encoder {encoder!r}: {first_line(error)}."
        ) from error
    stored = None if weights in ("none", "default") else read_weights(encoder, weights)
    try:
        if stored is not None and not of_timm:
            network.encoder.load_state_dict(stored)
        elif weights != "none":
            network = _create(architecture, encoder, options, weights, stored)
    except Exception as error:
        raise refused(encoder, weights, error, "timm" if of_timm else LIBRARY) from error
    if stored is not None and of_timm:
        moved = _create(architecture, encoder, options, weights, moved_by_one(stored))
        check_loaded(encoder, weights, network.encoder, moved.encoder)
    origin = {"encoder": encoder, "weights": weights, "sha256": weights_digest(network.encoder, weights)}
    if architecture == "dpt":  # its encoder keeps what comes after the blocks, which nothing uses
        blocks = list(network.encoder._output_indices)
        network.encoder.model.prune_intermediate_layers(blocks, prune_norm=True, prune_head=True)
    return SegmentationNetwork(
        network, *_normalisation(network, encoder, weights), origin, LEAST_CELLS.get(architecture, 1)
    )


def _create(
    architecture: str,
    encoder: str,
    options: Mapping[str, Any],
    weights: str = "none",
    stored: Mapping[str, Tensor] | None = None,
) -> Any:
    """The library's network; `stored` are the tensors of an encoder of timm."""
    kept = dict(options)
    pretrained: Any = None
    if weights != "none":
        pretrained = True if encoder.startswith("tu-") else _tag(encoder)
    if stored is not None:
        kept["pretrained_cfg_overlay"] = {"state_dict": dict(stored)}
    with quiet_builder(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's, on its own encoders' names
        return smp.create_model(architecture, encoder, pretrained, **kept)


def _known(encoder: str) -> str:
    """The encoder as the library calls it."""
    name = encoder.removeprefix("tu-")
    if encoder in smp.encoders.encoders:
        return encoder
    if timm.is_model(name.split(".")[0]):
        return f"tu-{name}"
    if name != encoder:
        raise UserMistake(f"timm has no encoder {name!r}{nearest(name, timm.list_models())}.")
    near = nearest(name, [*smp.encoders.get_encoder_names(), *timm.list_models()])
    raise UserMistake(f"Neither {LIBRARY} nor timm has an encoder {encoder!r}{near}.")


def _tag(encoder: str) -> str:
    """Which of its weights on the library's hub: ImageNet's, or the first where there are none."""
    found = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    return "imagenet" if "imagenet" in found else found[0]


def _normalisation(network: Any, encoder: str, weights: str) -> tuple[Any, Any]:
    """Mean and standard deviation of what the encoder takes, three numbers each."""
    if encoder.startswith("tu-"):
        config = network.encoder.model.pretrained_cfg
        return config["mean"], config["std"]
    if weights == "default":
        told = smp.encoders.get_preprocessing_params(encoder, _tag(encoder))
        return told["mean"], told["std"]
    return next((both for start, both in NORMALISATION.items() if encoder.startswith(start)), IMAGENET)
