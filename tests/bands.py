"""Images of three broad vertical bands, their labels and batches, for tests."""

from __future__ import annotations

import numpy as np
import torch

from alseg.engine.batches import BatchSource
from alseg.engine.team import ALONE, Team
from alseg.settings import Augmentation
from alseg.values import Classes, PixelLabel, PixelLabels

CPU = torch.device("cpu")
CLASSES = Classes(("left", "middle", "right"), 255)
COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]], np.uint8)
PLAIN = Augmentation(jitter=0, grayscale=0, blur=0)
CROP = (64, 64)


class Bands:
    """Images of three broad vertical bands, one a class, in its colour."""

    def __init__(self, count: int, size: tuple[int, int] = (48, 60)) -> None:
        self._count, self._size = count, size

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        return f"bands {i}"

    def classes_of(self, i: int) -> np.ndarray:
        edges = [self._size[1] // 3 + i % 3, 2 * self._size[1] // 3 - i % 2]
        return np.digitize(np.arange(self._size[1]), edges)[None].repeat(self._size[0], 0)

    def image(self, i: int) -> np.ndarray:
        return COLOURS[self.classes_of(i)]

    def mask(self, i: int) -> np.ndarray:
        return self.classes_of(i)

    def labels(self, each: int, images: range | None = None) -> PixelLabels:
        """Random pixels of the images, none within 4 of a band's edge or the border."""
        made = []
        for i in images if images is not None else range(self._count):
            mask, random = self.classes_of(i), np.random.default_rng(i)
            while sum(label.image == self.key(i) for label in made) < each:
                y = int(random.integers(4, self._size[0] - 4))
                x = int(random.integers(4, self._size[1] - 4))
                if len(set(mask[y, x - 4 : x + 5].tolist())) == 1:
                    made.append(self.label(i, y, x, CLASSES.names[mask[y, x]]))
        return PixelLabels(tuple(made))

    def label(self, i: int, y: int, x: int, name: str | None) -> PixelLabel:
        return PixelLabel(f"{i}-{y}-{x}", self.key(i), y, x, name, 0, "test", "test")


def source_of(
    images: Bands,
    labels: PixelLabels,
    augmentation: Augmentation = PLAIN,
    size: tuple[int, int] = CROP,
    batch_size: int = 4,
    seed: int = 0,
    round: int = 0,
    workers: int = 0,
    room: int | None = None,
    team: Team = ALONE,
) -> BatchSource:
    return BatchSource(
        images,
        labels,
        CLASSES,
        augmentation,
        size=size,
        batch_size=batch_size,
        seed=seed,
        round=round,
        workers=workers,
        room=room,
        team=team,
    )
