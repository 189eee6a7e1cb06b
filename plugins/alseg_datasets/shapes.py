"""Generated images: a ground, a sky, and shapes of which some are rare and small."""

from __future__ import annotations

import numpy as np

from alseg.values import Classes

CLASSES = Classes(
    names=("ground", "sky", "disc", "square", "triangle", "ring"),
    void=255,
    colours=((120, 100, 80), (140, 190, 230), (200, 60, 60), (60, 140, 70), (230, 180, 40), (130, 70, 170)),
)
# class -> chance of appearing in an image, and radius as a share of the image's side
SHAPES = {
    "disc": (0.9, (0.12, 0.2)),
    "square": (0.8, (0.1, 0.18)),
    "triangle": (0.35, (0.09, 0.13)),
    "ring": (0.25, (0.09, 0.13)),
}
SPLITS = ("train", "val")


class Shapes:
    """`train_images` and `val_images` square images, the same on every machine."""

    classes = CLASSES
    recipe = "shapes"

    def __init__(self, train_images: int, val_images: int, side: int) -> None:
        self._counts = {"train": train_images, "val": val_images}
        self._side = side
        self.splits = tuple(split for split in SPLITS if self._counts[split])

    def images(self, split: str) -> ShapeImages:
        """The images of a split."""
        return ShapeImages(split, self._counts[split], self._side)


class ShapeImages:
    """One split, each image drawn from a seed of its own."""

    def __init__(self, split: str, count: int, side: int) -> None:
        self._split, self._count, self._side = split, count, side

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        """Such as train-007."""
        return f"{self._split}-{i:03}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [side, side, 3]: each class in a shade of its colour, striped or plain, under noise."""
        random, drawn, _ = self._drawn(i)
        colours = np.array(CLASSES.colours, np.float64)
        shade = colours + random.normal(0, 22, colours.shape)
        y, x = np.mgrid[: self._side, : self._side]
        stripes = 12 * np.sin((x + 2 * y) * (2 * np.pi / 9) + random.uniform(0, 6))
        light = random.uniform(0.75, 1.15) * (1 + random.uniform(-0.3, 0.3) * (x / self._side - 0.5))
        image = shade[drawn] + stripes[..., None] * (drawn % 2)[..., None]
        image = image * light[..., None] + random.normal(0, 14, image.shape)
        return np.clip(image, 0, 255).astype(np.uint8)

    def mask(self, i: int) -> np.ndarray | None:
        """uint8 [side, side]; a one-pixel seam around each shape is void."""
        return self._drawn(i)[2]

    def _drawn(self, i: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
        # the generator, what is drawn where, and the mask
        random = np.random.Generator(np.random.PCG64([SPLITS.index(self._split), i]))
        side = self._side
        y, x = (np.mgrid[:side, :side] + 0.5) / side
        horizon = random.uniform(0.25, 0.6) + random.uniform(-0.15, 0.15) * (x - 0.5)
        drawn = np.where(y < horizon, CLASSES.index["sky"], CLASSES.index["ground"]).astype(np.uint8)
        seam = np.zeros((side, side), bool)
        for name, (chance, radii) in SHAPES.items():
            present, radius = random.uniform() < chance, random.uniform(*radii)
            cy, cx = random.uniform(radius, 1 - radius, 2)
            if present:
                distance = _distance(name, y - cy, x - cx, radius)
                drawn[distance < 0] = CLASSES.index[name]
                seam = (seam & (distance >= 0)) | (abs(distance) < 0.5 / side)
        return random, drawn, np.where(seam, np.uint8(CLASSES.void), drawn)


def _distance(name: str, y: np.ndarray, x: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance to a shape's outline, negative inside, in units of the image's side."""
    if name == "disc":
        return np.hypot(y, x) - radius
    if name == "square":
        return np.maximum(abs(y), abs(x)) - radius * 0.9
    if name == "triangle":
        return np.maximum(abs(x) * 0.87 - y * 0.5, y) - radius * 0.6
    return abs(np.hypot(y, x) - radius * 0.75) - radius * 0.3
