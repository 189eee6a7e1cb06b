"""What is timed: images of CamVid's size, their labels, and a model, for both sides the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alseg.engine.device import seeded
from alseg.imagefiles import read_mask
from alseg.plugins import load_plugins
from alseg.values import Classes, PixelLabel, PixelLabels
from alseg_datasets.files import FileImages, ImageFile, image_files
from benchmarks.reference import VOID

CPU = torch.device("cpu")
CLASSES = Classes(tuple(f"class {i}" for i in range(11)), VOID)
CITY = Classes(tuple(f"class {i}" for i in range(19)), VOID)  # as many as Cityscapes has
DISTINCT = 32  # images that stand for a whole pool


def files_of(images: list[Path], masks: list[Path]) -> FileImages:
    """These files as a dataset has them, with void where CamVid has its 11."""
    return FileImages([ImageFile(*both) for both in zip([p.stem for p in images], images, masks, strict=True)], masked)


def masked(path: Path) -> np.ndarray:
    """Class values of a mask file, uint8 [H, W]."""
    values = read_mask(path)
    return np.where(values < len(CLASSES), values, VOID).astype(np.uint8)


def generated(folder: Path, count: int, size: tuple[int, int]) -> FileImages:
    """PNGs of smooth colours in patches, and masks of the patches."""
    random = np.random.default_rng(0)
    images, masks = [], []
    for i in range(count):
        coarse = random.integers(0, len(CLASSES), (12, 16)).astype(np.uint8)
        mask = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.NEAREST)
        tones = Image.fromarray(random.integers(0, 256, (24, 32, 3)).astype(np.uint8))
        colours = np.asarray(tones.resize(size[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(colours + random.integers(-12, 13, colours.shape), 0, 255).astype(np.uint8)
        images.append(folder / f"{i:03}.png")
        masks.append(folder / f"{i:03}-mask.png")
        Image.fromarray(noisy).save(images[-1])
        mask.save(masks[-1])
    return files_of(images, masks)


def camvid(data: Path, count: int | None = None, split: str = "train") -> FileImages:
    """The first images of a split of a CamVid folder, or all; masks are PNGs."""
    files = image_files(data / split)[:count]
    return files_of(files, [data / f"{split}annot" / f"{file.stem}.png" for file in files])


def is_lossy(data: Path, split: str = "train") -> bool:
    """Whether a CamVid folder's images are not the published PNGs."""
    return any(file.suffix.lower() != ".png" for file in image_files(data / split))


def known_mask(images: FileImages, i: int) -> np.ndarray:
    """The mask of an image that has one."""
    mask = images.mask(i)
    assert mask is not None
    return mask


def labels_of(images: FileImages, n: int) -> PixelLabels:
    """n pixels of each image at random."""
    random, made = np.random.default_rng(1), []
    for i in range(len(images)):
        mask = known_mask(images, i)
        places = random.choice(np.flatnonzero(mask != VOID), n, replace=False)
        for place in places:
            y, x = divmod(int(place), mask.shape[1])
            made.append(PixelLabel("", images.key(i), y, x, CLASSES.names[mask[y, x]], 0, "", ""))
    return PixelLabels(tuple(made))


def sparse_masks(images: FileImages, labels: PixelLabels, classes: Classes = CLASSES) -> np.ndarray:
    """The same labels as masks [N, H, W] of VOID."""
    masks = np.full((len(images), *known_mask(images, 0).shape), VOID, np.int64)
    for i in range(len(images)):
        points, values = labels.trained(images.key(i), classes)
        masks[i, points[:, 0], points[:, 1]] = values
    return masks


def model(encoder: str, seed: int = 0, weights: str = "none", classes: int = len(CLASSES)) -> nn.Module:
    """DeepLabv3+, its encoder from untrained weights or from a file of them."""
    piece = load_plugins(third_party=False).find("model", "deeplabv3plus")
    with seeded(CPU, seed, 0, "benchmark"):
        return piece.build(piece.resolve({"encoder": encoder, "weights": weights}), classes=classes)


def points_of(masks: np.ndarray) -> tuple[Tensor, Tensor]:
    """The labels of masks [B, H, W] as points [B, n, 2] in fractions and classes [B, n]; n each."""
    points, classes = [], []
    for mask in masks:
        places = np.argwhere(mask != VOID)
        points.append((places + 0.5) / np.array(mask.shape))
        classes.append(mask[tuple(places.T)])
    return torch.tensor(np.array(points), dtype=torch.float32), torch.from_numpy(np.array(classes))


class Repeated:
    """`Images` of a pool of any length: DISTINCT of them, made by chance, under as many keys as wanted."""

    def __init__(self, count: int, size: tuple[int, int]) -> None:
        random = np.random.default_rng(0)
        coarse = (DISTINCT, size[0] // 16 + 1, size[1] // 16 + 1)
        tones = random.integers(0, 224, (*coarse, 3), np.uint8).repeat(16, 1).repeat(16, 2)[:, : size[0], : size[1]]
        self._pixels = tones + random.integers(0, 32, tones.shape, np.uint8)
        classes = random.integers(0, len(CITY), coarse).astype(np.uint8)
        self._masks = classes.repeat(16, 1).repeat(16, 2)[:, : size[0], : size[1]]
        self._masks[:, : size[0] // 8] = CITY.void
        self._count = count

    def __len__(self) -> int:
        return self._count

    def key(self, i: int) -> str:
        """A name of its own for each."""
        return f"image {i}"

    def image(self, i: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        return self._pixels[i % DISTINCT]

    def mask(self, i: int) -> np.ndarray:
        """Class values, uint8 [H, W]; void in the upper eighth."""
        return self._masks[i % DISTINCT]


@dataclass(frozen=True)
class Material:
    """Images, their labels as points and as masks, and how they are batched."""

    images: FileImages
    labels: PixelLabels
    masks: np.ndarray
    batch_size: int
    pixels: int
    precision: str = "auto"  # alseg's; the reference's is float32
    device: torch.device = CPU
