"""Opening a run's images and refusing, before anything is trained, what cannot work."""

from __future__ import annotations

import os
from functools import partial

from alseg.config import Resolved, RunConfig
from alseg.engine.images import DecodedImages
from alseg.errors import UserMistake
from alseg.options import fitted
from alseg.progress import Progress


def open_images(
    resolved: Resolved, progress: Progress
) -> tuple[str | None, DecodedImages, DecodedImages | None, DecodedImages | None]:
    """The evaluation split, the pool, the evaluation images where they have masks, the paper's test images."""
    dataset, config = resolved.dataset, resolved.config
    if "train" not in dataset.splits:
        raise UserMistake(f"The dataset {config.dataset.name!r} has no images to train on.")
    if config.split is not None and config.split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise UserMistake(f"The dataset {config.dataset.name!r} has no split {config.split!r}; there are {there}.")
    split = config.split or next((name for name in ("val", "test") if name in dataset.splits), None)
    paper = config.protocol == "paper"
    if paper and "test" not in dataset.splits:
        raise UserMistake(
            f"--protocol paper evaluates on the split test, which the dataset {config.dataset.name!r} lacks."
        )
    memory = physical_memory() // 4
    opened: dict[str, DecodedImages] = {}
    for name in dict.fromkeys(["train", *([split] if split else []), *(["test"] if paper else [])]):
        images = dataset.images(name)
        if len(images) == 0:
            raise UserMistake(f"The split {name!r} of the dataset {config.dataset.name!r} is empty.")
        with progress.phase(f"reading {name} images", len(images)) as step:
            opened[name] = DecodedImages(
                images, dataset.classes, memory, config.train.workers, advance=partial(step, 1, "")
            )
        memory -= opened[name].bytes
    held_out = opened[split] if split is not None else None
    if held_out is not None and not any(held_out.has_mask):
        split, held_out = None, None
    if held_out is not None and not all(held_out.has_mask):
        missing = held_out.keys[held_out.has_mask.index(False)]
        raise UserMistake(
            f"The image {missing} of split {split!r} has no mask while others have: add the mask or remove the image."
        )
    test = opened["test"] if paper else None
    if test is not None and not all(test.has_mask):
        raise UserMistake(f"--protocol paper needs masks of the split test; {test.keys[0]} or another has none.")
    return split, opened["train"], held_out, test


def check_data(config: RunConfig, pool: DecodedImages, needs_masks: bool, classes: int) -> None:
    """Refuse what cannot work before anything is trained."""
    if needs_masks and not all(pool.has_mask):
        missing = pool.keys[pool.has_mask.index(False)]
        raise UserMistake(
            f"The image {missing} has no mask, which the oracle {config.oracle.name!r} or --void skip needs: add it, "
            "or remove the image."
        )
    if needs_masks and not pool.has_known:
        raise UserMistake("Every pixel of the training masks is void: there is nothing to learn from.")
    height, width = min(pool.sizes, key=lambda size: size[0] * size[1])
    if config.first_pixels > height * width:
        raise UserMistake(f"first_pixels is {config.first_pixels}, but the smallest image has {height * width} pixels.")
    for name, size, batch in (
        ("train.size", fitted(config.train.size, pool.sizes[0]), config.train.batch_size),
        ("query.size", fitted(config.query.size, max(pool.sizes)), config.query.batch_size),
        ("evaluate.size", fitted(config.evaluate.size, max(pool.sizes)), config.evaluate.batch_size),
    ):
        # at least the image, 32 channels at half its size and the class scores, in float32
        needed = batch * size[0] * size[1] * 4 * (3 + 8 + classes)
        if needed > physical_memory():
            raise UserMistake(
                f"{name} {size[0]}x{size[1]} in batches of {batch} takes over {needed / 1e9:.0f} GB; this machine has "
                f"{physical_memory() / 1e9:.0f} GB."
            )


def physical_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
