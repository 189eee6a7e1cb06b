"""What one run tells at each of its budgets."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from alseg.errors import AlsegError
from alseg.report.reading import RunView
from alseg.store import IMAGES, QUESTIONS, RunFolder, read_lines
from alseg.values import START_ITEMS

ASKED = "asked.json"  # a round that was asked and not trained
CELLS = 64  # a side of the grid on which uniform draws are summed
FINEST = 200  # pixels an image, beyond which that grid is too coarse
ONE_BUDGET = 1.005  # pixels per image that differ by less are one budget
LOOKED_AT = 50  # labels, to see whether a person's time is among them


@dataclass(frozen=True)
class Point:
    """A run at the end of a round; seconds are sums over its rounds up to this one.

    pixels: its budget so far, see `_budgets`. spread: mean distance of a pixel asked in this round to the
    nearest other one of its image, over the image's diagonal; uniform: the same, expected of as many uniform
    draws. paper_miou: of the best epoch on test, where watched.
    """

    round: int
    pixels: float
    miou: float | None
    paper_miou: float | None
    classes: float | None
    classes_total: float | None
    spread: float | None
    uniform: float | None
    train_seconds: float | None
    acquire_seconds: float | None
    labelling_seconds: float | None
    class_counts: Mapping[str, int]

    @property
    def seconds(self) -> float | None:
        """Training and choosing; None where the round was not trained."""
        return None if self.train_seconds is None else self.train_seconds + (self.acquire_seconds or 0)


def is_picked(view: RunView) -> bool:
    """Whether somebody picks the pixels, a person or one simulated: the questions after the first round have none."""
    path = view.folder.in_round(1, QUESTIONS)
    return path.exists() and any(line["y"] is None for line in read_lines(path))


def images(view: RunView) -> tuple[str, str]:
    """Digests of the training images and of those evaluated on: names, sizes, pixels and masks."""
    path = view.folder.path / IMAGES
    return _digests(view.folder, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=4096)
def _digests(folder: RunFolder, changed: int) -> tuple[str, str]:
    of: dict[bool, list[Any]] = {True: [], False: []}
    for line in folder.images():
        what = [line["image"], line["height"], line["width"], line["mask"], line.get("pixels")]
        of[line["split"] == "train"].append(what)
    train, held_out = (hashlib.sha256(repr(sorted(lines, key=repr)).encode()).hexdigest() for lines in of.values())
    return train, held_out


def points(view: RunView) -> list[Point]:
    """A run's rounds in order, with one that was only asked at the end."""
    found, train, acquire = [], 0.0, 0.0
    full = view.settings.get("labels") == "all"
    labelling = _labelling_seconds(view)
    asked = _only_asked(view.folder.path / ASKED)
    only = [] if asked is None or asked["round"] < len(view.records) else [asked]
    pixels = _budgets(view, [*view.records, *only])
    for number, record in enumerate(view.records):
        train += record["train_seconds"] or 0.0
        acquire += record["acquire_seconds"] or 0.0
        seconds = (train, acquire, labelling[number] if labelling else None)
        spreads = (None, None) if full else spread(view, record["round"])
        found.append(_point(record, pixels[number], spreads, seconds))
    found += [_point(record, pixels[-1], spread(view, record["round"]), (None, None, None)) for record in only]
    return found


def _budgets(view: RunView, records: Sequence[Mapping[str, Any]]) -> list[float]:
    """Pixels per image that were asked up to the end of each round, with the labels that the run began with.

    What cannot be labelled costs budget, too. Under full supervision, and where a record does not say what was asked,
    those that are labelled.
    """
    images, full = view.record.get("train_images"), view.settings.get("labels") == "all"
    if full or not images or any(record.get("asked_pixels") is None for record in records):
        return [float(record["pixels_per_image"]) for record in records]
    # a first round asks nothing where the run began with labels
    given = sum(record["labelled_pixels"] for record in records[:1] if not record["asked_pixels"])
    return [(given + asked) / images for asked in accumulate(record["asked_pixels"] for record in records)]


def _point(
    record: Mapping[str, Any],
    pixels: float,
    spreads: tuple[float | None, float | None],
    seconds: tuple[float | None, float | None, float | None],
) -> Point:
    return Point(
        round=int(record["round"]),
        pixels=pixels,
        miou=_number(record.get("miou")),
        paper_miou=_number(record.get("paper_miou")),
        classes=_number(record.get("classes_per_image")),
        classes_total=_number(record.get("classes_per_image_total")),
        spread=spreads[0],
        uniform=spreads[1],
        train_seconds=seconds[0],
        acquire_seconds=seconds[1],
        labelling_seconds=seconds[2],
        class_counts=record.get("class_counts") or {},
    )


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _only_asked(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        asked = json.loads(path.read_text(encoding="utf-8"))
        return {**asked, "round": int(asked["round"]), "pixels_per_image": float(asked["pixels_per_image"])}
    except (ValueError, KeyError, TypeError) as error:
        raise AlsegError(f"{path} cannot be understood: {error}.") from error


def _labelling_seconds(view: RunView) -> list[float] | None:
    """Up to each round, where people answered; the journal, long in other runs, is then not read."""
    path = view.folder.path / "labels.jsonl"
    if not path.exists():
        return None
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        asked = (line for line in file if f'"item": "{START_ITEMS}' not in line)  # others have no time of this run
        if all('"seconds": null' in line for line in islice(asked, LOOKED_AT)):
            return None
    minutes = view.labelling_minutes()
    return None if minutes is None else [60 * value for value in minutes]


def budgets_of(pixels: Iterable[float]) -> list[float]:
    """The budgets that runs stopped at, rising; values within half a percent are one, their median."""
    budgets: list[list[float]] = []
    for value in sorted(pixels):
        if budgets and value <= budgets[-1][0] * ONE_BUDGET:
            budgets[-1].append(value)
        else:
            budgets.append([value])
    return [median(values) for values in budgets]


def budget_of(pixels: float, budgets: Sequence[float]) -> float:
    """The nearest budget."""
    return min(budgets, key=lambda budget: abs(budget - pixels))


def class_shares(points: Iterable[Point]) -> dict[str, float]:
    """The share of each class among the pixels that were labelled in these rounds."""
    counts: Counter[str] = sum((Counter(point.class_counts) for point in points), Counter())
    total = sum(counts.values())
    return {name: count / total for name, count in counts.items()} if total else {}


def spread(view: RunView, round: int) -> tuple[float | None, float | None]:
    """How far apart a round's pixels lie, and what uniform draws would give; shares of the image's diagonal.

    The quotient of the two is Clark and Evans's index (Ecology 35, 1954), with the images' borders counted in.
    None where no image has two pixels.
    """
    path = view.folder.in_round(round, QUESTIONS)
    if not path.exists():
        return None, None
    state = path.stat()
    return _spread(view, path, state.st_mtime_ns, state.st_size)


_SPREADS: dict[tuple[Path, int, int], tuple[float | None, float | None]] = {}


def _spread(view: RunView, path: Path, changed: int, size: int) -> tuple[float | None, float | None]:
    """A round's questions are written once, so what was found in them stays."""
    key = (path.resolve(), changed, size)
    if key not in _SPREADS:
        asked = [line for line in read_lines(path) if not line.get("audit")]
        picked = any(line["y"] is None for line in asked)
        places = {label.item: (label.y, label.x) for label in view.labels} if picked else {}
        images: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for line in asked:
            place = (line["y"], line["x"]) if line["y"] is not None else places.get(line["item"])
            if place is not None:
                images[line["image"]].append(place)
        _SPREADS[key] = spread_of(images, view.sizes)
    return _SPREADS[key]


def spread_of(
    images: Mapping[str, Sequence[tuple[int, int]]], sizes: Mapping[str, tuple[int, int]]
) -> tuple[float | None, float | None]:
    """Mean distance to the nearest other pixel of an image, over its diagonal, and that of uniform draws."""
    alike: dict[tuple[int, int, int], list[Sequence[tuple[int, int]]]] = defaultdict(list)
    for image, places in images.items():
        if len(places) > 1 and image in sizes:
            alike[(len(places), *sizes[image])].append(places)
    total, found, expected = 0, 0.0, 0.0
    for (count, height, width), several in alike.items():
        where = np.array(several, np.float64)  # [images, count, 2]
        for part in np.array_split(where, max(1, where.shape[0] * count * count // 2_000_000)):
            distances = np.linalg.norm(part[:, :, None] - part[:, None], axis=-1)
            distances[:, np.arange(count), np.arange(count)] = np.inf
            found += float(distances.min(-1).sum()) / math.hypot(height, width)
        total += len(several) * count
        expected += len(several) * count * uniform_spread(count, round(width / height, 1))
    return (found / total, expected / total) if total else (None, None)


@cache
def uniform_spread(count: int, proportion: float) -> float:
    """What `spread_of` tends to for `count` uniform draws in an image that is `proportion` times as wide as high."""
    proportion = max(proportion, 0.1)
    if count > FINEST:  # borders matter little: Clark and Evans
        return 0.5 * math.sqrt(proportion / count) / math.hypot(1, proportion)
    distances = _sorted_distances(proportion)
    # the chance that the nearest of the others lies in the k-th nearest cell
    left = (np.arange(distances.shape[1], -1, -1) / distances.shape[1]) ** (count - 1)
    return float((distances @ (left[:-1] - left[1:])).mean() / math.hypot(1, proportion))


@cache
def _sorted_distances(proportion: float) -> np.ndarray:
    """From points of a quarter of the image to the centres of all cells, each row rising: [points, cells]."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    corners = (np.arange(CELLS // 4) + 0.5) * 2 / CELLS
    down, right = corners[:, None] - centres, proportion * (corners[:, None] - centres)
    distances = np.hypot(down[:, None, :, None], right[None, :, None, :])
    return np.sort(distances.reshape(len(corners) ** 2, CELLS**2), 1)
