"""Labels as COCO keypoints: one JSON file, one annotation a labelled pixel.

A keypoint is at the pixel's index (x, y), as in COCO's own person keypoints; the box [x, y, 1, 1] and the polygon
are the pixel's square in continuous coordinates, where its centre is (x + 0.5, y + 0.5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alseg.errors import UserMistake
from alseg.interchange.fields import details, items, label, read_json, real, shown, table, text, whole
from alseg.interchange.labelset import LabelSet, Size
from alseg.values import Classes, PixelLabel

KEYPOINT = "pixel"


def write_coco(labels: LabelSet) -> bytes:
    """Images, categories from 1, annotations; what is never trained on is under "alseg", where no trainer looks."""
    assert labels.classes is not None
    categories = {name: number for number, name in enumerate(labels.classes.names, 1)}
    images = {image: number for number, image in enumerate(labels.sizes, 1)}
    known = [found for found in labels.labels if found.name is not None and not found.audit]
    others = [found for found in labels.labels if found.name is None or found.audit]
    content = {
        "info": {"description": "Labelled pixels, exported by alseg", "version": "1.0"},
        "licenses": [],
        "images": [
            {"id": number, "file_name": labels.file(image), "height": size[0], "width": size[1], "alseg_image": image}
            for (image, size), number in zip(labels.sizes.items(), images.values(), strict=True)
        ],
        "categories": [
            {"id": number, "name": name, "supercategory": "", "keypoints": [KEYPOINT], "skeleton": []}
            for name, number in categories.items()
        ],
        "annotations": [
            _annotation(number, found, images[found.image], categories[str(found.name)])
            for number, found in enumerate(known, 1)
        ],
        "alseg": {
            "untrained": [
                {"image_id": images[p.image], "y": p.y, "x": p.x, "class": p.name, **details(p)} for p in others
            ]
        },
    }
    return json.dumps(content, allow_nan=False).encode()


def _annotation(number: int, found: PixelLabel, image: int, category: int) -> dict[str, Any]:
    y, x = found.y, found.x
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "keypoints": [x, y, 2],
        "num_keypoints": 1,
        "bbox": [x, y, 1, 1],
        "area": 1,
        "iscrowd": 0,
        "segmentation": [[x, y, x + 1, y, x + 1, y + 1, x, y + 1]],
        "attributes": details(found),
    }


def read_coco(path: Path) -> LabelSet:
    """Every keypoint of every annotation that is not marked as unlabelled (v = 0), as the pixel it lies in."""
    content = table(read_json(path), str(path))
    images, sizes = _images(path, content)
    categories = {}
    for number, entry in enumerate(items(content.get("categories"), "categories")):
        category = table(entry, f"category {number}")
        categories[whole(category.get("id"), "a category's id")] = text(category.get("name"), "a category's name")
    labels: list[PixelLabel] = []
    without = 0
    for entry in items(content.get("annotations"), "annotations"):
        annotation = table(entry, "an annotation")
        try:
            image, name = _named(images, annotation, "image_id"), _named(categories, annotation, "category_id")
            more = table(annotation.get("attributes") or {}, "attributes")
            places = _places(annotation)
            labels += [label(image, y, x, name, more, len(labels) + i) for i, (y, x) in enumerate(places)]
            without += not places
        except UserMistake as error:
            raise UserMistake(f"Annotation {shown(annotation.get('id'))} of {path}: {error}") from error
    for entry in items(table(content.get("alseg") or {}, "alseg").get("untrained") or [], "untrained"):
        pixel = table(entry, "an entry of untrained")
        image, y, x = _named(images, pixel, "image_id"), whole(pixel.get("y"), "y"), whole(pixel.get("x"), "x")
        told = None if pixel.get("class") is None else text(pixel["class"], "class")
        labels.append(label(image, y, x, told, pixel, len(labels)))
    notes = (f"{without} annotations have no keypoint and were left out.",) if without else ()
    return LabelSet(tuple(labels), sizes, Classes(tuple(categories.values()), -1), notes=notes)


def _images(path: Path, content: Mapping[str, Any]) -> tuple[dict[int, str], dict[str, Size]]:
    """Names by id, and sizes by name."""
    images: dict[int, str] = {}
    sizes: dict[str, Size] = {}
    for entry in items(content.get("images"), "images"):
        image = table(entry, "an image")
        number = whole(image.get("id"), "an image's id")
        name = text(image.get("alseg_image", image.get("file_name")), "an image's file_name")
        if number in images or name in sizes:
            raise UserMistake(f"{path} has two images {shown(name if name in sizes else number)}.")
        images[number] = name
        sizes[name] = whole(image.get("height"), "height"), whole(image.get("width"), "width")
    return images, sizes


def _named(known: Mapping[int, str], entry: Mapping[str, Any], key: str) -> str:
    number = whole(entry.get(key), key)
    if number not in known:
        raise UserMistake(f"{key} is {number}, which the file does not have.")
    return known[number]


def _places(annotation: Mapping[str, Any]) -> list[tuple[int, int]]:
    numbers = items(annotation.get("keypoints") or [], "keypoints")
    if len(numbers) % 3:
        raise UserMistake(f"keypoints has {len(numbers)} numbers, not three a keypoint.")
    found = []
    for i in range(0, len(numbers), 3):
        x, y, visible = (real(number, "a keypoint's coordinate") for number in numbers[i : i + 3])
        if visible:
            found.append((whole(math.floor(y), "y"), whole(math.floor(x), "x")))
    return found
