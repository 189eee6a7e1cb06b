"""Run folders written by hand: the files of a run whose numbers a test chooses."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alseg.compare.page import write_comparison
from alseg.store import RunFolder, write_lines
from alseg.values import PixelLabel

CLASSES = ("road", "sky", "tree", "bicycle")
RANDOM = {"acquirer": "random", "selector": "uniform"}
IMAGES = 4
SIZE = (60, 80)


def write_run(
    path: Path,
    mious: Sequence[float | None],
    *,
    acquirer: str = "margin",
    selector: str = "topk-then-uniform",
    seed: int = 0,
    step: float = 10,
    settings: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    classes_per_image: float = 3.0,
    dataset: str = "camvid",
    device: str = "cpu, 2 threads",
    pixels: str = "",
) -> Path:
    """A run with a round for each mIoU; settings are laid over the rest, table by table."""
    table: dict[str, Any] = {
        "seed": seed,
        "labels": "points",
        "pixels_per_round": 10,
        "device": "cpu",
        "dataset": {"name": dataset, "data": str(path.parent)},
        "model": {"name": "deeplabv3plus", "weights": "none"},
        "acquirer": {"name": acquirer},
        "selector": {"name": selector, **({"top": 0.05} if selector.startswith("topk") else {})},
        "oracle": {"name": "ground-truth"},
        "train": {"epochs": 50, "workers": 2},
        "record": {
            **{"alseg": "0.1.0", "torch": "2.9", "classes": list(CLASSES), "split": "val", "precision": "float32"},
            **{"device": device, "train_images": IMAGES, "weights": {"sha256": ""}, **(record or {})},
        },
    }
    for key, value in (settings or {}).items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, Mapping) else value
    height, width = SIZE
    shape = {"height": height, "width": width, "pixels": pixels}
    lines = [
        {"split": split, "image": f"{split}{i}", **shape, "mask": f"{split}{i}"}
        for split in ("train", "val")
        for i in range(IMAGES)
    ]
    folder = RunFolder.create(path, table, lines)
    random = np.random.default_rng([seed, len(acquirer), len(selector)])
    for number, miou in enumerate(mious):
        _questions(folder, number, random)
        shares = random.multinomial(10 * IMAGES, [0.4, 0.3, 0.2, 0.1])
        folder.write_round(
            {
                **{"round": number, "labelled_pixels": IMAGES * step * (number + 1)},
                **{"pixels_per_image": float(step * (number + 1)), "split": "val", "miou": miou},
                **{"iou": dict.fromkeys(CLASSES, miou), "pixel_accuracy": miou, "loss": 0.5, "decode": "points"},
                **{"classes_per_image": classes_per_image, "classes_per_image_total": classes_per_image + number / 2},
                **{"class_counts": dict(zip(CLASSES, shares.tolist(), strict=True)), "device": device},
                **{"train_seconds": 60.0 + seed, "acquire_seconds": 5.0 if number else 0.1, "evaluate_seconds": 3.0},
            }
        )
    return path


def labels_of(run: Path, rounds: int = 2) -> list[PixelLabel]:
    """An answer to each question of a run's rounds."""
    asked = [(r, question) for r in range(rounds) for question in RunFolder(run).questions(r) or ()]
    return [PixelLabel(q.item, q.image, q.y, q.x, CLASSES[0], r, "ground-truth", "") for r, q in asked]


def _questions(folder: RunFolder, round: int, random: np.random.Generator) -> None:
    asked = [
        {"item": f"r{round:02}-{i * 10 + n:07}", "image": f"train{i}", "y": int(y), "x": int(x), "audit": False}
        for i in range(IMAGES)
        for n, (y, x) in enumerate(zip(random.integers(0, SIZE[0], 10), random.integers(0, SIZE[1], 10), strict=True))
    ]
    write_lines(folder.round_folder(round) / "questions.jsonl", asked)


def write_asked(run: Path, round: int, pixels: float, classes: float) -> None:
    """The note of a round that was asked and not trained."""
    numbers = {"round": round, "pixels_per_image": pixels, "classes_per_image": classes}
    (run / "asked.json").write_text(json.dumps(numbers | {"classes_per_image_total": classes + 1}))


def write_study(
    root: Path,
    gains: Mapping[tuple[str, str], float],
    *,
    seeds: int = 4,
    rounds: int = 3,
    noise: float = 0.01,
    full: float | None = None,
) -> list[Path]:
    """Runs of several strategies, each above random by its gain after the first round, which all share."""
    random = np.random.default_rng(7)
    base = 0.4 + 0.1 * np.log1p(np.arange(rounds))
    found = []
    for seed in range(seeds):
        first = 0.4 + noise * random.standard_normal()
        for number, ((acquirer, selector), gain) in enumerate(gains.items()):
            mious = base + gain + noise * random.standard_normal(rounds)
            mious[0] = first
            path = root / f"{number}-{acquirer.replace(':', '-')}-{seed}"
            diverse = 3 + 10 * gain
            found.append(
                write_run(
                    path,
                    mious.tolist(),
                    acquirer=acquirer,
                    selector=selector,
                    seed=seed,
                    classes_per_image=diverse,
                )
            )
        if full is not None:
            settings = {"labels": "all"}
            path = root / f"full-{seed}"
            found.append(write_run(path, [full + noise * random.standard_normal()], seed=seed, settings=settings))
    return found


def rows(out: Path, name: str = "summary.csv") -> list[dict[str, str]]:
    """A table of a comparison."""
    with open(out / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def compare(runs: Sequence[Path], out: Path, **options: Any) -> list[dict[str, str]]:
    """Compare runs: the summary."""
    write_comparison(runs, out, random=RANDOM, **options)
    return rows(out)
