"""How long does a run wait for its images when it starts?

    python -m benchmarks.starting --dataset camvid --data CAMVID

All images and masks of train and val are opened as a run opens them: with an empty cache (they are decoded, checked and
written), again (they are mapped, as their files have not changed), and without a cache (`-o cache=none`).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from alseg.engine.images import DecodedImages
from alseg.opened import open_dataset
from alseg.plugins import load_plugins
from alseg.protocols import Dataset

SPLITS = ("train", "val")
WAYS = ("decoded and written", "mapped, later starts", "decoded, without a cache")


def main() -> None:
    """Time the three ways in turns, and print a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="camvid")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    piece = load_plugins(third_party=False).find("dataset", arguments.dataset)
    dataset = open_dataset(piece, piece.resolve({"data": arguments.data}))
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for way, cache in zip(WAYS, (Path(folder), Path(folder), None), strict=True):
                images, taken = opened(dataset, cache)
                seconds[way].append(taken)
    print(f"| {images} images with masks | median | range |")
    print("| --- | --- | --- |")
    for way, taken_by in seconds.items():
        middle, low, high = statistics.median(taken_by), min(taken_by), max(taken_by)
        print(f"| {way} | {middle:.3g} s | {low:.3g} to {high:.3g} s |")


def opened(dataset: Dataset, cache: Path | None) -> tuple[int, float]:
    """How many images were opened, and the seconds that took."""
    start, count = time.perf_counter(), 0
    for split in SPLITS:
        if split in dataset.splits:
            count += len(DecodedImages(dataset.images(split), dataset.classes, 2**40, cache=cache))
    return count, time.perf_counter() - start


if __name__ == "__main__":
    main()
