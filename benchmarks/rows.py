"""The rows of the table: the same work done by the reference and by alseg."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from alseg.engine.acquire import Pool, Proposals, ask_model
from alseg.engine.augment import draw_geometry, draws_of
from alseg.engine.batches import Batch, BatchSource
from alseg.engine.descent import stepper
from alseg.engine.device import choose_precision
from alseg.engine.evaluate import confusion_matrix
from alseg.engine.gradients import gradients_of
from alseg.engine.images import DecodedImages
from alseg.engine.steps import CUDAGraph, Recorded
from alseg.engine.train import optimizer, point_loss
from alseg.options import Size
from alseg.plugins import load_plugins
from alseg.settings import Augmentation, PassSettings, TrainSettings
from alseg.values import Classes, PixelLabels
from benchmarks import reference
from benchmarks.material import CLASSES, Material, points_of

TRAINING_STEPS = {"points": "training-step", "dense": "training-step-dense"}  # rows by where the decoder is computed


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
    yield training_step(material, model, "dense")
    yield augmentation(material)
    yield acquisition(material, model)
    yield evaluation(material, model)
    yield decoding(material)


def training_step(material: Material, model: nn.Module, decode: Literal["points", "dense"] = "points") -> Row:
    """Forward, loss, backward and Adam's step on one batch that is there already; on a GPU many in a row."""
    first = slice(0, material.batch_size)
    images = first_images(material)
    masks = torch.from_numpy(material.masks[first]).to(material.device)
    plain = reference.plain(model).train()
    descent = torch.optim.Adam(plain.parameters(), lr=5e-4, weight_decay=2e-4)
    steps = 10 if material.device.type == "cuda" else 1
    step = trainer(material, copy.deepcopy(model), TrainSettings(decode=decode))
    batch = first_batch(material)

    def our_steps() -> None:
        for _ in range(steps):
            step(batch)

    def plain_steps() -> None:
        for _ in range(steps):
            reference.training_step(plain, descent, images, masks)

    return Row(TRAINING_STEPS[decode], "step", steps, plain_steps, our_steps)


def first_images(material: Material) -> Tensor:
    """A batch of images as they are, float32 [B, 3, H, W] on the device."""
    arrays = [material.images.image(i) for i in range(material.batch_size)]
    return torch.cat([reference.as_tensor(array) for array in arrays]).to(material.device)


def first_batch(material: Material) -> Batch:
    """The same as alseg has it, with its labels."""
    points = [part.to(material.device) for part in points_of(material.masks[: material.batch_size])]
    return Batch(first_images(material).contiguous(memory_format=torch.channels_last), *points)


def trainer(
    material: Material,
    model: nn.Module,
    settings: TrainSettings = TrainSettings(),
    say: Callable[[str], None] = lambda line: None,
) -> Callable[[Batch], Tensor]:
    """A training step of the model, in place, as alseg takes it; it gives the loss.

    say: told where a step cannot be recorded as a CUDA graph.
    """
    device, precision = material.device, choose_precision(material.precision, material.device)
    ours: Any = model.to(device).to(memory_format=torch.channels_last).train()
    descent = optimizer(ours, settings)
    descend = stepper(descent, device)

    def loss_of(*parts: Any) -> Tensor:
        return point_loss(ours, Batch(*parts), settings.decode == "points")

    recorded = settings.cuda_graph and device.type == "cuda"
    fused = settings.fused_norms
    gradients = gradients_of(ours, loss_of, descent, device, precision, fused_norms=fused, recorded=recorded, say=say)
    work = Recorded(gradients, ours.parameters(), material.pixels, CUDAGraph(), say) if recorded else gradients

    def step(batch: Batch) -> Tensor:
        loss = work(batch)
        descend()
        return loss

    return step


def batches(material: Material, images: DecodedImages) -> BatchSource:
    """The material's images as augmented batches of their own size."""
    return BatchSource(
        images,
        material.labels,
        CLASSES,
        Augmentation(),
        size=images.sizes[0],
        batch_size=material.batch_size,
        seed=0,
        round=0,
        device=material.device,
        workers=TrainSettings().workers,
    )


def augmentation(material: Material) -> Row:
    """Augmented batches, with the labels moved, from images in memory; the reference's are images alone."""
    decoded = DecodedImages(material.images, CLASSES, 2**40)
    source, change = batches(material, decoded), Augmentation()
    arrays = [decoded.image(i) for i in range(len(decoded))]
    keys, size = list(decoded.keys), decoded.sizes[0]
    ours, theirs = itertools.count(), itertools.count()  # epochs, so that both draw the same

    def our_batches() -> None:
        for _ in source.epoch(next(ours)):
            pass

    def reference_batches() -> None:
        reference_augmented(arrays, draws_of(0, 0, next(theirs), keys), size, change, material)

    return Row("augmentation", "batch", source.steps, reference_batches, our_batches)


def reference_augmented(
    arrays: list[np.ndarray],
    draws: list[list[float]],
    size: tuple[int, int],
    change: Augmentation,
    material: Material,
) -> list[Tensor]:
    """Each image augmented on its own in the reference's way, in batches [B, 3, H, W]."""
    made = []
    for array, drawn in zip(arrays, draws, strict=True):
        image = torch.from_numpy(array).to(material.device).permute(2, 0, 1).contiguous()
        geometry = draw_geometry(drawn, array.shape[:2], size, change.scale, change.flip)
        made.append(reference.augmented(image, geometry, drawn, change))
    return [torch.stack(made[j : j + material.batch_size]) for j in range(0, len(made), material.batch_size)]


def acquisition(material: Material, model: nn.Module) -> Row:
    """Margin and topk-then-uniform over the images: from pixels in memory to questions."""
    decoded = DecodedImages(material.images, CLASSES, 2**40)
    plain = reference.plain(model).eval()
    arrays = [decoded.image(i) for i in range(len(decoded))]
    masks = [decoded.mask(i) for i in range(len(decoded))]
    free = [mask != CLASSES.void for mask in masks if mask is not None]

    def reference_asks() -> None:
        reference.acquire(plain, arrays, free, material.pixels, np.random.default_rng(0))

    return Row("acquisition", "image", len(decoded), reference_asks, asking(material, model, decoded))


def asking(
    material: Material, model: nn.Module, decoded: DecodedImages, classes: Classes = CLASSES, size: Size | None = None
) -> Callable[[], Proposals]:
    """Margin and topk-then-uniform over decoded images that the model sees at `size`, as alseg asks."""
    ours: Any = copy.deepcopy(model).to(material.device).to(memory_format=torch.channels_last).eval()
    registry = load_plugins(third_party=False)
    margin, selector = (registry.find(*piece) for piece in (("acquirer", "margin"), ("selector", "topk-then-uniform")))
    acquirer, chooser = margin.build({}), selector.build(selector.resolve({}))

    def ours_asks() -> Proposals:
        pool = Pool(
            decoded,
            classes,
            PixelLabels(),
            skip_void=True,
            seed=0,
            round=1,
            device=material.device,
            batch_size=PassSettings().batch_size,
            workers=2,
        )
        precision = choose_precision(material.precision, material.device)
        pieces = (ours, acquirer, chooser, classes)
        return ask_model(pool, material.pixels, *pieces, size=size, device=material.device, precision=precision)

    return ours_asks


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
