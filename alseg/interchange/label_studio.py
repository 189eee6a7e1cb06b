"""Labels as Label Studio tasks: one JSON file, one task an image, one keypoint a labelled pixel.

Places are percentages of the image's width and height, of the pixel's centre: x = 100 (x + 0.5) / width. A pixel
that nobody could tell is a keypoint with a label of its own, so that somebody can.
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
from alseg.values import PixelLabel

UNSURE = "can't tell"
FROM, TO = "label", "image"  # the names of the tags in Label Studio's labelling interface
DIAMETER = 0.5  # of a point on the screen, per cent of the width


def write_label_studio(labels: LabelSet) -> bytes:
    """A task for each image that was asked, with all its points in one annotation."""
    assert labels.classes is not None
    unsure = UNSURE
    while unsure in labels.classes.index:
        unsure += "?"
    tasks = []
    for number, (image, own) in enumerate(labels.by_image().items(), 1):
        results = [_result(f"{number}-{i}", found, labels.sizes[image], unsure) for i, found in enumerate(own)]
        tasks.append(
            {
                "id": number,
                "data": {"image": labels.file(image), "alseg_image": image, "alseg_unsure": unsure},
                "annotations": [{"id": number, "was_cancelled": False, "ground_truth": False, "result": results}],
                "predictions": [],
            }
        )
    return json.dumps(tasks, allow_nan=False).encode()


def _result(identifier: str, found: PixelLabel, size: Size, unsure: str) -> dict[str, Any]:
    height, width = size
    return {
        "id": identifier,
        "type": "keypointlabels",
        "from_name": FROM,
        "to_name": TO,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * (found.x + 0.5) / width,
            "y": 100 * (found.y + 0.5) / height,
            "width": DIAMETER,
            "keypointlabels": [unsure if found.name is None else found.name],
        },
        "meta": {"alseg": details(found)},
    }


def read_label_studio(path: Path) -> LabelSet:
    """The keypoints of every annotation that was not cancelled, each as the pixel it lies in."""
    labels: list[PixelLabel] = []
    sizes: dict[str, Size] = {}
    others = 0
    content = read_json(path)
    for number, entry in enumerate(content if isinstance(content, list) else [content], 1):
        try:
            task = table(entry, "it")
            if "data" not in task and is_json_min(task):
                raise UserMistake("it is in Label Studio's format JSON-MIN: export the project as JSON.")
            data = table(task.get("data"), "data")
            image = text(data.get("alseg_image", data.get("image")), "the image")
            unsure = text(data.get("alseg_unsure", UNSURE), "alseg_unsure")
            for annotation in items(task.get("annotations") or task.get("completions") or [], "annotations"):
                done = table(annotation, "an annotation")
                if done.get("was_cancelled"):
                    continue
                for result in (table(found, "a result") for found in items(done.get("result"), "result")):
                    if result.get("type") not in ("keypointlabels", "keypoint"):
                        others += 1
                        continue
                    size, found = _point(result, image, unsure, _who(done), len(labels))
                    if sizes.setdefault(image, size) != size:
                        raise UserMistake(f"it gives the image {shown(image)} two sizes.")
                    labels.append(found)
        except UserMistake as error:
            raise UserMistake(f"Task {number} of {path}: {error}") from error
    notes = (f"{others} results are no keypoints and were left out.",) if others else ()
    return LabelSet(tuple(labels), sizes, notes=notes)


def is_json_min(task: Mapping[str, Any]) -> bool:
    """Whether an object is a task of Label Studio's JSON-MIN, which has the results by tag, without their kinds."""
    results = [value[0] for value in task.values() if isinstance(value, list) and value]
    return "annotation_id" in task or any(isinstance(one, Mapping) and "original_width" in one for one in results)


def _who(annotation: Mapping[str, Any]) -> str:
    person = annotation.get("completed_by")
    if isinstance(person, Mapping):
        person = person.get("email", person.get("id"))
    return "" if person is None else str(person)


def _point(result: Mapping[str, Any], image: str, unsure: str, who: str, number: int) -> tuple[Size, PixelLabel]:
    value = table(result.get("value"), "value")
    size = (
        whole(result.get("original_height"), "original_height"),
        whole(result.get("original_width"), "original_width"),
    )
    if result.get("image_rotation"):
        raise UserMistake(f"the image is turned by {shown(result['image_rotation'])} degrees: turn it back.")
    names = [text(name, "a label") for name in items(value.get("keypointlabels") or [], "keypointlabels")]
    if len(names) != 1:
        raise UserMistake(f"a keypoint has {len(names)} labels, not one.")
    y, x = _pixel(value.get("y"), size[0], "y"), _pixel(value.get("x"), size[1], "x")
    meta = result.get("meta")
    own = meta.get("alseg") if isinstance(meta, Mapping) else None
    more = {"who": who} if own is None else table(own, "meta.alseg")
    return size, label(image, y, x, None if names[0] == unsure else names[0], more, number)


def _pixel(percent: Any, length: int, axis: str) -> int:
    share = real(percent, axis)
    if not 0 <= share <= 100:
        raise UserMistake(f"{axis} is {share:g} %, which is outside the image.")
    return min(math.floor(share * length / 100), length - 1)
