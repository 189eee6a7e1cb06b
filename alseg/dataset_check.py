"""Looking a copy of a dataset over: every file is read once, as a run would, and what is in it is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from alseg.data import absent_classes, can_evaluate, check_classes, default_split
from alseg.engine.images import DecodedImages
from alseg.opened import whose
from alseg.progress import Progress, Quiet
from alseg.protocols import Dataset, Images
from alseg.values import Classes

MOST_NAMED = 3  # images without a mask


@dataclass(frozen=True)
class SplitCheck:
    """What a split holds.

    published: how many images it was published with, where the dataset says so. sizes: (H, W) -> images.
    pixels: labelled pixels by class, and `void` those of void; both over the images with a mask.
    """

    name: str
    keys: tuple[str, ...]
    has_mask: tuple[bool, ...]
    published: int | None
    sizes: Mapping[tuple[int, int], int]
    pixels: Mapping[str, int]
    void: int

    @property
    def without_mask(self) -> list[str]:
        """The names of the images without a mask."""
        return [key for key, there in zip(self.keys, self.has_mask, strict=True) if not there]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "split": self.name,
            "images": len(self.keys),
            "published": self.published,
            "without_mask": self.without_mask,
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.items()},
            "pixels": dict(self.pixels),
            "void": self.void,
        }


def check_dataset(dataset: Dataset, progress: Progress | None = None, workers: int = 2) -> list[SplitCheck]:
    """Read every image and mask of every split; UserMistake is the first thing that a run would refuse."""
    check_classes(dataset.classes, whose(dataset))
    checks = [_check_split(dataset, split, progress or Quiet(), workers) for split in dataset.splits]
    for check in checks:
        if check.name == default_split(dataset.splits):
            can_evaluate(check.name, check.keys, check.has_mask, any(check.pixels.values()), whose(dataset))
    return checks


def notes(checks: Sequence[SplitCheck], classes: Classes) -> list[str]:
    """What is no mistake but worth a look."""
    lines = []
    for split in checks:
        if split.published not in (None, len(split.keys)):
            lines.append(f"{split.name}: {len(split.keys)} of the {split.published} images that were published.")
        without = split.without_mask
        if 0 < len(without) < len(split.keys):
            more = ", ..." if len(without) > MOST_NAMED else ""
            lines.append(f"{split.name} has images without a mask: {', '.join(without[:MOST_NAMED])}{more}.")
    train = next((split for split in checks if split.name == "train"), None)
    if train is not None and any(train.has_mask):
        present = [i for i, count in enumerate(train.pixels.values()) if count]
        lines += [line] if (line := absent_classes(classes, present)) else []
    return lines


def sample(checks: Sequence[SplitCheck], count: int) -> list[tuple[str, int]]:
    """Split and number of at most `count` images spread over all, those with a mask first."""
    everything = [(check.name, i, there) for check in checks for i, there in enumerate(check.has_mask)]
    chosen: list[tuple[str, int]] = []
    for wanted in (True, False):
        group = [(split, i) for split, i, there in everything if there is wanted]
        take = min(count - len(chosen), len(group))
        chosen += [group[(2 * j + 1) * len(group) // (2 * take)] for j in range(take)]
    return chosen


def _check_split(dataset: Dataset, split: str, progress: Progress, workers: int) -> SplitCheck:
    images = _Counting(dataset.images(split), dataset.classes)
    with progress.phase(f"reading {split} images", len(images)) as step:
        read = DecodedImages(
            images, dataset.classes, memory=0, workers=workers, advance=partial(step, 1, ""), whose=whose(dataset)
        )
    total = sum(images.counts.values(), np.zeros(len(dataset.classes) + 1, np.int64))
    return SplitCheck(
        name=split,
        keys=read.keys,
        has_mask=tuple(read.has_mask),
        published=getattr(dataset, "published", {}).get(split),
        sizes=Counter(read.sizes),
        pixels=dict(zip(dataset.classes.names, total.tolist(), strict=False)),
        void=int(total[-1]),
    )


class _Counting:
    """Images whose masks are counted while somebody else reads and checks them."""

    def __init__(self, images: Images, classes: Classes) -> None:
        self._images, self._classes = images, classes
        self.counts: dict[int, np.ndarray] = {}  # by image: pixels of each class, then of void

    def __len__(self) -> int:
        return len(self._images)

    def key(self, i: int) -> str:
        """The image's name."""
        return self._images.key(i)

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self._images.image(i)

    def mask(self, i: int) -> np.ndarray | None:
        """Class values [H, W]."""
        mask, classes = self._images.mask(i), len(self._classes)
        if mask is not None and mask.dtype.kind in "iub":  # what else it may be is refused by the reader
            known = mask[(mask >= 0) & (mask < classes)]
            counts = np.bincount(known.astype(np.int64), minlength=classes + 1)
            counts[classes] = np.count_nonzero(mask == self._classes.void)
            self.counts[i] = counts
        return mask
