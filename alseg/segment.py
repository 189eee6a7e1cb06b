"""A run's model put to use: what it thinks of any image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alseg import noise
from alseg.config import RunConfig, stored_config
from alseg.engine.calls import decoded, encoded, told
from alseg.engine.checks import checked_acquirer
from alseg.engine.device import choose_device, choose_precision, inferring, keep_freed_memory, lower_precision, mode
from alseg.engine.passes import Draw, Passes
from alseg.engine.predict import ModelPrediction, spoilt
from alseg.engine.tiles import strips, tiled_logits
from alseg.errors import UserMistake
from alseg.grid import resize_images
from alseg.hints import plugin_hint
from alseg.imagefiles import image_array, read_image
from alseg.models import Models
from alseg.options import Longer, Size, fitted
from alseg.paths import expanded
from alseg.plugins import Registry, load_plugins
from alseg.protocols import Acquirer, Model
from alseg.store import SETTINGS, RunFolder
from alseg.values import Classes, PixelLabels, PoolBatch

TILE = 1024


@dataclass(frozen=True)
class Segmentation:
    """What a model thinks of an image of H x W pixels.

    mask: class values int64 [H, W]. probabilities: float32 [C, H, W], utility: float [H, W], higher = label
    this first; both only where asked.
    """

    mask: np.ndarray
    probabilities: np.ndarray | None = None
    utility: np.ndarray | None = None


class Segmenter:
    """The model of a run's last finished round, or of `round`, ready for images of any size.

    size: what it sees an image at, such as Size(360, 480), Longer(1024) or "own"; None: as the run's
    evaluation did. tile: the longest side in pixels that it sees in one piece; what is larger is cut into
    overlapping tiles. The run's dataset need not be there. Raises UserMistake where there is no such run or
    round.
    """

    def __init__(
        self,
        run: Path | str,
        *,
        round: int | None = None,
        device: str = "auto",
        precision: str = "auto",
        size: Size | Longer | str | None = None,
        tile: int = TILE,
        registry: Registry | None = None,
    ) -> None:
        folder = RunFolder(Path(run))
        self.folder, self.round = folder.path, _round_of(folder, round)
        settings = folder.settings()
        registry = (registry or load_plugins()).recalling(settings.get("record"))
        self.config, self.classes = _understood(registry, folder, settings)
        self._device = choose_device(device)
        if self._device.type == "cpu":
            keep_freed_memory()
        self._precision = choose_precision(precision, self._device)
        self.size = size or self.config.evaluate.size or self.config.query.size
        self.tile = tile
        models = Models(registry, self.config, len(self.classes), self._device)
        self._model, _ = models.stored(folder, self.round)
        with inferring(self._model, self._precision) as quick:
            self._quick: Model = quick
        self.digest = folder.model_digest(self.round)
        self._registry = registry
        self._acquirer: Acquirer | None = None

    @property
    def precision(self) -> str:
        """Such as float32."""
        return str(self._precision).removeprefix("torch.")

    def acquirer(self) -> Acquirer:
        """The run's acquirer; UserMistake where its plugin is not there."""
        if self._acquirer is None:
            choice = self.config.acquirer
            piece = self._registry.find("acquirer", choice.name)
            self._acquirer = checked_acquirer(piece.build(piece.resolve(choice.options)), piece.described())
        return self._acquirer

    @property
    def model(self) -> nn.Module:
        """The network, as it was trained."""
        assert isinstance(self._model, nn.Module)
        return self._model

    @torch.no_grad()
    def segment(
        self,
        image: np.ndarray | Path | str | Image.Image,
        *,
        probabilities: bool = False,
        utility: bool = False,
        key: str = "image",
    ) -> Segmentation:
        """What the model thinks of an image; `key` names it for keyed randomness.

        image: uint8 [H, W, 3] RGB, or a file's path or Pillow's image, which are read as a dataset's images are: turned
        as their EXIF says, of 16 bits the upper 8, on white where transparent. UserMistake where it is none of these.
        """
        image = _pixels(image)
        own = (image.shape[0], image.shape[1])
        with mode(self._quick, False):
            scaled = resize_images(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], fitted(self.size, own))
            logits = tiled_logits(scaled, self._logits, self.tile)
            if not bool(logits.amax().isfinite()):  # NaN, or what makes NaN
                raise spoilt(told(self._quick).name)
            mask = np.empty(own, np.int64)
            chances = np.empty((len(self.classes), *own), np.float32) if probabilities else None
            for rows, values in strips(logits, own):
                part = values()
                mask[rows] = part.argmax(1)[0].cpu().numpy()
                if chances is not None:
                    chances[:, rows] = part.softmax(1)[0].cpu().numpy()
            worth = self._utility(scaled, logits, own, key) if utility else None
        return Segmentation(mask, chances, worth)

    def _logits(self, images: Tensor) -> Tensor:
        images = images.to(self._device).contiguous(memory_format=torch.channels_last)
        with lower_precision(self._device, self._precision):
            return decoded(self._quick, encoded(self._quick, images), len(images))

    def _utility(self, scaled: Tensor, logits: Tensor, size: tuple[int, int], key: str) -> np.ndarray:
        draw = Draw(self.config.seed, self.round + 1, (key,))
        on_device = logits.device

        def passes(part: Tensor) -> Passes:
            there = part.to(self._device)
            return Passes(self._quick, lambda: there, self._device, self._precision, draw)

        def members(k: int) -> Iterator[Tensor]:
            if max(scaled.shape[-2:]) <= self.tile:
                return passes(scaled).samples(k)
            return (
                tiled_logits(scaled, lambda part: next(passes(part).samples(1, first)), self.tile)  # noqa: B023
                for first in range(k)
            )

        def embedding() -> Tensor:
            if max(scaled.shape[-2:]) > self.tile:
                raise UserMistake(
                    "The run's acquirer compares all of an image at once: give a larger --tile or a --size."
                )
            return passes(scaled).embedding()

        def term(name: str) -> Tensor:
            return tiled_logits(scaled, lambda part: passes(part).term(name), self.tile)

        def uniforms(purpose: str) -> Tensor:
            start = noise.stream(draw.seed, draw.round, purpose, key)
            return noise.uniforms([start], size[0] * size[1], on_device).unflatten(1, size)

        batch = PoolBatch(
            keys=(key,),
            size=size,
            prediction=ModelPrediction(lambda: logits, size, members, embedding, term, told(self._quick).name),
            candidates=torch.ones(1, *size, dtype=torch.bool, device=on_device),
            labels=PixelLabels(),
            round=draw.round,
            noise=uniforms,
        )
        return self.acquirer()(batch)[0].double().cpu().numpy()


def _pixels(image: Any) -> np.ndarray:
    if isinstance(image, str | Path):
        return read_image(expanded(image))
    if isinstance(image, Image.Image):
        return image_array(image)
    if not isinstance(image, np.ndarray):
        raise UserMistake(
            f"An image is an array uint8 [H, W, 3], a file's path or a Pillow image, not a {type(image).__name__}."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise UserMistake(f"An image is uint8 [H, W, 3], not empty; this one is {image.dtype} {list(image.shape)}.")
    return image


def _round_of(folder: RunFolder, round: int | None) -> int:
    finished = len(folder.rounds())
    if round is None:
        if not finished:
            raise UserMistake(f"The run {folder.path} has no finished round yet: wait for it or resume it.")
        round = max((r for r in range(finished) if folder.has_model(r)), default=-1)
        if round < 0:
            raise UserMistake(f"The run {folder.path} has no model any more.")
    elif not folder.has_model(round):
        raise UserMistake(f"The run {folder.path} has no model of round {round}; it has finished {finished} rounds.")
    return round


def _understood(registry: Registry, folder: RunFolder, settings: Mapping[str, Any]) -> tuple[RunConfig, Classes]:
    path, record = folder.path / SETTINGS, settings.get("record", {})
    try:
        if not isinstance(record, Mapping) or not {"classes", "colours", "void_value"} <= record.keys():
            raise UserMistake("its record lacks the classes")
        colours = tuple((int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in record["colours"])
        classes = Classes(tuple(record["classes"]), int(record["void_value"]), colours)
        return stored_config(registry, _with_known_terms(registry, settings), ("model",)), classes
    except (UserMistake, ValueError, TypeError) as error:
        raise UserMistake(f"{path} cannot be taken up: {str(error).rstrip('.')}.{plugin_hint(record)}") from error


def _with_known_terms(registry: Registry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings without the training terms whose plugins are not there: what the model says needs none."""
    known = {piece.name for piece in registry.of("term")}
    names = settings.get("terms") if isinstance(settings.get("terms"), list) else []
    absent = [name for name in names or [] if name.rpartition(":")[2] not in known]
    kept = {key: value for key, value in settings.items() if key not in absent}
    return kept | ({"terms": [name for name in names or [] if name not in absent]} if absent else {})
