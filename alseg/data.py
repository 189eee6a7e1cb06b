"""Opening a run's images and refusing, before anything is trained, what cannot work."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alseg.calling import mistaken
from alseg.config import Resolved, RunConfig
from alseg.engine.images import DecodedImages, batch_most
from alseg.engine.memory import memory_for_images, physical_memory
from alseg.engine.pixelcache import cache_folder
from alseg.errors import UserMistake
from alseg.opened import whose
from alseg.options import fitted
from alseg.progress import Progress
from alseg.values import Classes

MOST_NAMED = 5


@dataclass(frozen=True)
class RunImages:
    """A run's images by split, and which split is evaluated (None: there are no masks to do it with)."""

    opened: Mapping[str, DecodedImages]
    split: str | None
    paper: bool

    @property
    def pool(self) -> DecodedImages:
        """The training images."""
        return self.opened["train"]

    @property
    def held_out(self) -> DecodedImages | None:
        """What is evaluated on."""
        return None if self.split is None else self.opened[self.split]

    @property
    def test(self) -> DecodedImages | None:
        """What the paper's protocol chooses its epoch on."""
        return self.opened["test"] if self.paper else None

    def fingerprints(self) -> list[dict[str, Any]]:
        """A line an image: split, name, size, and digests of its pixels and of its mask's."""
        return [
            {"split": split, "image": key, "height": size[0], "width": size[1], "pixels": pixels, "mask": mask}
            for split, images in self.opened.items()
            for key, size, (pixels, mask) in zip(images.keys, images.sizes, images.digests, strict=True)
        ]


def open_images(resolved: Resolved, progress: Progress) -> RunImages:
    """The pool, what is evaluated on where it has masks, and the paper's test images; all read and checked."""
    dataset, config = resolved.dataset, resolved.config
    name, paper = whose(dataset) or f"The dataset {config.dataset.name!r}", config.protocol == "paper"
    check_classes(dataset.classes, whose(dataset))
    if "train" not in dataset.splits:
        raise UserMistake(f"{name} has no images to train on.")
    if config.split is not None and config.split not in dataset.splits:
        there = ", ".join(dataset.splits)
        raise UserMistake(f"{name} has no split {config.split!r}; there are {there}.")
    split = config.split or default_split(dataset.splits)
    if paper and "test" not in dataset.splits:
        raise UserMistake(f"{name} has no split test, which --protocol paper evaluates on.")
    memory = memory_for_images()
    opened: dict[str, DecodedImages] = {}
    for wanted in dict.fromkeys(["train", *([split] if split else []), *(["test"] if paper else [])]):
        images = dataset.images(wanted)
        if len(images) == 0:
            raise UserMistake(f"{name} has no images in its split {wanted!r}.")
        with progress.phase(f"reading {wanted} images", len(images)) as step:
            opened[wanted] = DecodedImages(
                images,
                dataset.classes,
                memory,
                config.train.workers,
                advance=partial(step, 1, ""),
                cache=cache_folder(config.cache),
                whose=whose(dataset),
            )
        memory -= opened[wanted].bytes
    if split is not None:
        images = opened[split]
        if not can_evaluate(split, images.keys, images.has_mask, bool(images.present), whose(dataset)):
            if config.split is not None:
                raise UserMistake(f"{name} has no masks in its split {split!r}: give another --split to evaluate on.")
            split = None
    found = RunImages(opened, split, paper)
    if found.test is not None and not all(found.test.has_mask):
        missing = found.test.keys[found.test.has_mask.index(False)]
        raise UserMistake(f"--protocol paper needs masks of the split test; {missing} has none.")
    return found


def absent_classes(classes: Classes, present: Collection[int]) -> str:
    """A sentence on the classes that no pixel of the training masks has; empty where there are none."""
    absent = [name for i, name in enumerate(classes.names) if i not in present]
    more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
    named = ", ".join(absent[:MOST_NAMED])
    return f"No pixel of the training masks is {named}{more} (void is {classes.void})." if absent else ""


def default_split(splits: Sequence[str]) -> str | None:
    """What is evaluated on unless another split is asked for."""
    return next((name for name in ("val", "test") if name in splits), None)


def can_evaluate(split: str, keys: Sequence[str], has_mask: Sequence[bool], known: bool, whose: str) -> bool:
    """Whether a split has masks; UserMistake where some of its images have none, or all pixels are void."""
    if not any(has_mask):
        return False
    if not all(has_mask):
        missing = keys[has_mask.index(False)]
        raise mistaken(
            whose,
            f"The image {missing} of split {split!r} has no mask while others have: add the mask or remove the image.",
        )
    if not known:
        raise mistaken(whose, f"Every pixel of the masks of split {split!r} is void: nothing can be evaluated on it.")
    return True


def refuse_changed(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> None:
    """UserMistake where a run's images are no longer those it began with; it names the first that is not."""
    known = {(line["split"], line["image"]): line for line in before}
    found = {(line["split"], line["image"]): line for line in now}
    back, anywhere = "put the data back as it was, or start another run", {image for _, image in found}
    lost = [(image, split) for split, image in known if (split, image) not in found]
    # one that is in another split now is there only since this one is gone
    for image, split in sorted(lost, key=lambda one: one[0] in anywhere):
        raise UserMistake(f"The image {image} of split {split!r}, which the run began with, is gone: {back}.")
    for (split, image), line in known.items():
        there = found[split, image]
        size = {"height", "width"}  # which are in no digest
        for parts, what in (({"pixels", *size}, "The image"), ({"mask"}, "The mask of")):
            if any(line[part] != there[part] for part in parts):
                raise UserMistake(f"{what} {image} of split {split!r} is not what it was when the run began: {back}.")
    for split, image in found:
        if (split, image) not in known:
            raise UserMistake(f"The image {image} of split {split!r} was not there when the run began: {back}.")


def known_pixels(images: DecodedImages, void: int) -> int:
    """How many pixels of all masks have a class."""
    masks = (images.mask(i) for i in range(len(images)))
    return sum(int((mask != void).sum()) for mask in masks if mask is not None)


def check_classes(classes: Classes, whose: str = "") -> None:
    """UserMistake where names are missing or double, or void is one of the classes; whose: the dataset's name."""
    count, names, name = len(classes), classes.names, whose or "The dataset"
    if not count or len(set(names)) < count:
        raise UserMistake(f"{name} must name its classes, each with a name of its own.")
    if not -(2**31) <= classes.void < 2**31:
        raise UserMistake(f"{name} has the void {classes.void}: it must fit into 32 bits with a sign.")
    if 0 <= classes.void < count:
        what = f"{whose}: its void" if whose else "The dataset's void"
        raise UserMistake(f"{what} is {classes.void}, which is the class {names[classes.void]}.")
    if classes.colours and len(classes.colours) != count:
        raise UserMistake(f"{name} has {count} classes and {len(classes.colours)} colours.")


def check_data(config: RunConfig, pool: DecodedImages, needs_masks: bool, classes: int, device: str) -> None:
    """Refuse what cannot work before anything is trained."""
    if needs_masks and not all(pool.has_mask):
        missing = pool.keys[pool.has_mask.index(False)]
        raise UserMistake(
            f"The image {missing} has no mask, which the oracle {config.oracle.name!r} or --void skip needs: add it, "
            "or remove the image."
        )
    if needs_masks and not pool.present:
        raise UserMistake("Every pixel of the training masks is void: there is nothing to learn from.")
    height, width = min(pool.sizes, key=lambda size: size[0] * size[1])
    if config.start_from is None and config.first_pixels > height * width:
        raise UserMistake(f"first_pixels is {config.first_pixels}, but the smallest image has {height * width} pixels.")
    largest = max(pool.sizes, key=lambda size: size[0] * size[1])
    memory = physical_memory()
    most = batch_most(largest, classes, device)  # passes cut their batches, trainings do not
    for name, size, batch in (
        ("train.size", fitted(config.train.size, pool.sizes[0]), config.train.batch_size),
        ("query.size", fitted(config.query.size, largest), min(config.query.batch_size, most, len(pool))),
        (
            "evaluate.size",
            fitted(config.evaluate.size or config.query.size, largest),
            min(config.evaluate.batch_size, most),
        ),
    ):
        # at least the image, 32 channels at half its size and the class scores, in float32
        needed = batch * size[0] * size[1] * 4 * (3 + 8 + classes)
        if needed > memory:
            raise UserMistake(
                f"{name} {size[0]}x{size[1]} in batches of {batch} takes over {needed / 1e9:.0f} GB; this machine has "
                f"{memory / 1e9:.0f} GB."
            )
    # probabilities and two copies, and keys, on the image's own grid; batches are cut so that one image counts
    needed = largest[0] * largest[1] * 4 * (3 * classes + 8)
    if needed > memory:
        raise UserMistake(
            f"An image of {largest[0]}x{largest[1]} with {classes} classes takes over {needed / 1e9:.0f} GB; this "
            f"machine has {memory / 1e9:.0f} GB: cut the images into parts."
        )
