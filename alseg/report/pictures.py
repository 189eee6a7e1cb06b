"""Pictures of a few training images for the report: the image, its truth, and what each round's model thinks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from alseg.colours import colours_of, levels
from alseg.engine.acquire import View
from alseg.engine.images import DecodedImages
from alseg.imagefiles import encoded, shrunk
from alseg.report import crops
from alseg.store import RunFolder, write_lines
from alseg.values import Classes
from alseg.writing import write_whole

COUNT = 4
LONGER_SIDE = 480  # pixels, at most
VOID = (224, 224, 192)


def chosen_images(count: int) -> list[int]:
    """The numbers of at most COUNT images spread evenly over `count`."""
    take = min(COUNT, count)
    return [(2 * j + 1) * count // (2 * take) for j in range(take)]


def write_images(folder: RunFolder, images: DecodedImages, classes: Classes) -> None:
    """samples/: the chosen images, their truth where it is known, and what they are called; pixels worth a look."""
    place, index = folder.path / "samples", []
    place.mkdir(exist_ok=True)
    _write_crops(folder, images)
    if (place / "index.jsonl").exists():
        return
    for number, i in enumerate(chosen_images(len(images))):
        mask, (height, width) = images.mask(i), images.sizes[i]
        _write(place / f"{number:02}-image.jpg", _fitted(images.image(i), Image.Resampling.LANCZOS))
        if mask is not None:
            _write(place / f"{number:02}-truth.png", _fitted(painted(mask, classes), Image.Resampling.NEAREST))
        index.append({"image": images.key(i), "height": height, "width": width})
    write_lines(place / "index.jsonl", index)  # last: it says that the others are there


def _write_crops(folder: RunFolder, images: DecodedImages) -> None:
    """samples/pixels/: crops around the labels so far that the report lists one by one."""
    numbers = {images.key(i): i for i in range(len(images))}
    for _, label in crops.worth_showing(folder):
        path = crops.place_of(folder, label.item)
        if path is None or path.exists() or label.image not in numbers:
            continue
        path.parent.mkdir(exist_ok=True)
        image = images.image(numbers[label.image])
        top, left, height, width = crops.window(label.y, label.x, *image.shape[:2])
        cut = np.ascontiguousarray(image[top : top + height, left : left + width])
        write_whole(path, crops.as_jpeg(Image.fromarray(cut)))


def write_round(folder: RunFolder, round: int, views: Iterable[View], classes: Classes) -> None:
    """rounds/NN/samples/: prediction and utility of each chosen image, in their order."""
    place = folder.round_folder(round) / "samples"
    place.mkdir(exist_ok=True)
    for number, seen in enumerate(sorted(views, key=lambda seen: seen.number)):
        predicted, utility = seen.predicted.cpu().numpy(), seen.utility.double().cpu().numpy()
        _write(place / f"{number:02}-prediction.png", _fitted(painted(predicted, classes), Image.Resampling.NEAREST))
        _write(place / f"{number:02}-utility.png", _fitted(levels(utility), Image.Resampling.BOX))


def painted(mask: np.ndarray, classes: Classes) -> np.ndarray:
    """Class values [H, W] in the classes' colours, uint8 [H, W, 3]."""
    table = np.array([*colours_of(classes), VOID], np.uint8)
    return table[np.where((mask >= 0) & (mask < len(classes)), mask, len(classes))]


def _fitted(pixels: np.ndarray, how: Image.Resampling) -> Image.Image:
    return shrunk(Image.fromarray(pixels), LONGER_SIDE, how)


def _write(path: Path, picture: Image.Image) -> None:
    write_whole(path, encoded(picture, "JPEG", quality=85) if path.suffix == ".jpg" else encoded(picture, "PNG"))
