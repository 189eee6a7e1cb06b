"""The images of the tiny dataset, in memory and on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from alseg.errors import UserMistake
from alseg.store import write_toml
from alseg.values import Classes

CLASSES = Classes(("ground", "sky", "disc"), 255, ((120, 100, 80), (140, 190, 230), (200, 60, 60)))
BORDER = 2  # pixels that are void


class TinyDataset:
    """Images by split; `same_size`: else every second one is higher and narrower."""

    classes = CLASSES
    recipe = "alseg-tiny"

    def __init__(self, counts: Mapping[str, int], size: tuple[int, int], same_size: bool = True) -> None:
        self._counts, self._size, self._same_size = dict(counts), size, same_size
        self.splits = tuple(split for split, count in counts.items() if count)

    def images(self, split: str) -> TinyImages:
        """The images of a split."""
        if split not in self.splits:
            raise UserMistake(f"There is no split {split}; there are {', '.join(self.splits)}.")
        return TinyImages(split, self._counts[split], self._size, self._same_size)


class TinyImages:
    """One split."""

    def __init__(self, split: str, count: int, size: tuple[int, int], same_size: bool) -> None:
        self._split, self._count, self._size, self._same_size = split, count, size, same_size

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        """Such as train-0."""
        return f"{self._split}-{i}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]: each class in its colour under a pattern."""
        drawn, (y, x) = self._drawn(i)
        pattern = (7 * y + 13 * x + 29 * i) % 31 - 15
        colours = np.array(CLASSES.colours, np.int64)[drawn]
        return np.clip(colours + pattern[..., None], 0, 255).astype(np.uint8)

    def mask(self, i: int) -> np.ndarray:
        """uint8 [H, W]; the border is void."""
        drawn, _ = self._drawn(i)
        mask = np.full(drawn.shape, CLASSES.void, np.uint8)
        inner = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        mask[inner] = drawn[inner]
        return mask

    def _drawn(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        height, width = self._size
        if not self._same_size and i % 2:
            height, width = height + 8, width - 8
        y, x = np.mgrid[:height, :width]
        shift = i + (0 if self._split == "train" else 5)
        drawn = (y * 5 < height * (2 + shift % 2)).astype(np.int64)
        centre = height * 0.6, width * (0.3 + 0.1 * (shift % 5))
        drawn[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < (0.2 * min(height, width)) ** 2] = 2
        return drawn, np.stack([y, x])


def write(dataset: TinyDataset, folder: Path) -> Path:
    """Images, masks and classes.toml."""
    for split in dataset.splits:
        images = dataset.images(split)
        for part, read in ((split, images.image), (f"{split}annot", images.mask)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            for i in range(len(images)):
                Image.fromarray(read(i)).save(folder / part / f"{images.key(i)}.png")
    colours = [list(colour) for colour in CLASSES.colours]
    write_toml(folder / "classes.toml", {"names": list(CLASSES.names), "void": CLASSES.void, "colours": colours})
    return folder
