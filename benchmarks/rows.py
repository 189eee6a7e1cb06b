"""The rows of the table: the same work done by the reference and by alseg."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from alseg.engine.acquire import Pool, ask_model
from alseg.engine.batches import Batch
from alseg.engine.device import choose_precision, lower_precision
from alseg.engine.evaluate import confusion_matrix
from alseg.engine.images import DecodedImages
from alseg.engine.train import optimizer, point_loss
from alseg.plugins import load_plugins
from alseg.settings import PassSettings, TrainSettings
from alseg.values import PixelLabels
from benchmarks import reference
from benchmarks.material import CLASSES, Material, points_of


@dataclass(frozen=True)
class Row:
    """What is timed on both sides; `per`: how many units a call does, named by `unit`."""

    name: str
    unit: str
    per: int
    reference: Callable[[], object]
    alseg: Callable[[], object]


def rows(material: Material, model: nn.Module) -> Iterator[Row]:
    """Every row."""
    yield training_step(material, model)
    yield acquisition(material, model)
    yield evaluation(material, model)
    yield decoding(material)


def training_step(material: Material, model: nn.Module) -> Row:
    """Forward, loss, backward and Adam's step on one batch that is there already."""
    first = slice(0, material.batch_size)
    arrays = [material.images.image(i) for i in range(material.batch_size)]
    images = torch.cat([reference.as_tensor(array) for array in arrays]).to(material.device)
    masks = torch.from_numpy(material.masks[first]).to(material.device)
    plain = reference.plain(model).train()
    descent = torch.optim.Adam(plain.parameters(), lr=5e-4, weight_decay=2e-4)
    ours = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    settings, precision = TrainSettings(), choose_precision(material.precision, material.device)
    our_descent = optimizer(ours, settings)  # type: ignore[arg-type]
    points = [part.to(material.device) for part in points_of(material.masks[first])]
    batch = Batch(images.contiguous(memory_format=torch.channels_last), *points)

    def step() -> None:
        with lower_precision(material.device, precision):
            error = point_loss(ours, batch, at_points=True)  # type: ignore[arg-type]
        our_descent.zero_grad(set_to_none=True)
        error.backward()
        our_descent.step()

    def plain_step() -> None:
        reference.training_step(plain, descent, images, masks)

    return Row("training-step", "step", 1, plain_step, step)


def acquisition(material: Material, model: nn.Module) -> Row:
    """Margin and topk-then-uniform over the images: from pixels in memory to questions."""
    decoded = DecodedImages(material.images, CLASSES, 2**40)
    plain, ours = reference.plain(model).eval(), copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    arrays = [decoded.image(i) for i in range(len(decoded))]
    masks = [decoded.mask(i) for i in range(len(decoded))]
    free = [mask != CLASSES.void for mask in masks if mask is not None]
    registry = load_plugins(third_party=False)
    margin, selector = (registry.find(*piece) for piece in (("acquirer", "margin"), ("selector", "topk-then-uniform")))
    acquirer, chooser = margin.build({}), selector.build(selector.resolve({}))
    settings = PassSettings()

    def ours_asks() -> None:
        pool = Pool(
            decoded,
            CLASSES,
            PixelLabels(),
            skip_void=True,
            seed=0,
            round=1,
            device=material.device,
            batch_size=settings.batch_size,
            workers=2,
        )
        precision = choose_precision(material.precision, material.device)
        pieces = (ours, acquirer, chooser, CLASSES)
        ask_model(pool, material.pixels, *pieces, size=None, device=material.device, precision=precision)  # type: ignore[arg-type]

    def reference_asks() -> None:
        reference.acquire(plain, arrays, free, material.pixels, np.random.default_rng(0))

    return Row("acquisition", "image", len(decoded), reference_asks, ours_asks)


def evaluation(material: Material, model: nn.Module) -> Row:
    """A confusion matrix over the images."""
    decoded = DecodedImages(material.images, CLASSES, 2**40)
    plain, ours = reference.plain(model).eval(), copy.deepcopy(model).to(memory_format=torch.channels_last).eval()
    arrays = [decoded.image(i) for i in range(len(decoded))]
    masks = [mask for mask in map(decoded.mask, range(len(decoded))) if mask is not None]
    settings = PassSettings()

    def ours_evaluates() -> None:
        confusion_matrix(
            ours,  # type: ignore[arg-type]
            decoded,
            CLASSES,
            size=None,
            batch_size=settings.batch_size,
            device=material.device,
            precision=choose_precision(material.precision, material.device),
            workers=2,
        )

    def reference_evaluates() -> None:
        reference.evaluate(plain, arrays, masks, len(CLASSES))

    return Row("evaluation", "image", len(decoded), reference_evaluates, ours_evaluates)


def decoding(material: Material) -> Row:
    """Getting an image's pixels in a later epoch."""
    decoded = DecodedImages(material.images, CLASSES, 2**40)

    def ours_reads() -> None:
        for i in range(len(decoded)):
            decoded.image(i).sum()

    def reference_reads() -> None:
        for file in material.images.files:
            reference.decode(file.image).sum()

    return Row("decoding", "image", len(decoded), reference_reads, ours_reads)
