"""python -m benchmarks: one table, each row measured side by side in one run."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from alseg.engine.device import choose_precision, keep_freed_memory
from benchmarks.material import Material, camvid, generated, labels_of, model, sparse_masks
from benchmarks.rows import Row, rows

IMAGES, VAL = 367, 101  # of CamVid
EPOCHS = 50


def main() -> None:
    """Measure, print the table, and write the list that --json asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="a CamVid folder; without it images are generated")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--size", default="360x480", help="of generated images, HxW")
    parser.add_argument("--images", type=int, default=16, help="how many are acquired and evaluated")
    parser.add_argument("--batch", type=int, default=4, help="of training")
    parser.add_argument("--pixels", type=int, default=10, help="labelled in each image")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="auto", help="alseg's: auto, float32 or bfloat16")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    arguments = parser.parse_args()
    keep_freed_memory()  # both sides gain
    with tempfile.TemporaryDirectory() as folder:
        height, width = map(int, arguments.size.split("x"))
        if arguments.data is not None:
            images = camvid(arguments.data, arguments.images)
        else:
            images = generated(Path(folder), arguments.images, (height, width))
        labels = labels_of(images, arguments.pixels)
        masks = sparse_masks(images, labels)
        material = Material(images, labels, masks, arguments.batch, arguments.pixels, arguments.precision)
        found = [measured(row, arguments.repeats) for row in rows(material, model(arguments.encoder))]
    found.append(whole_round(found, arguments.batch))
    show(found, choose_precision(arguments.precision, torch.device("cpu")))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(row: Row, repeats: int) -> dict[str, Any]:
    """Seconds a unit of both sides, taken in turns after one call of each that is not counted."""
    row.reference()
    row.alseg()
    times: dict[str, list[float]] = {"reference": [], "alseg": []}
    for turn in range(repeats):
        sides = [("reference", row.reference), ("alseg", row.alseg)]
        for side, call in sides if turn % 2 == 0 else sides[::-1]:
            times[side].append(timed(call) / row.per)
    before, now = (statistics.median(times[side]) for side in ("reference", "alseg"))
    ratios = [a / b for a, b in zip(times["reference"], times["alseg"], strict=True)]
    return {
        "name": row.name,
        "unit": row.unit,
        "reference_seconds": before,
        "alseg_seconds": now,
        "ratio": before / now,
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def whole_round(found: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """A round of the CamVid recipe, extrapolated from the rows; the reference evaluates after each epoch."""
    by_name = {row["name"]: row for row in found}
    steps = EPOCHS * (IMAGES // batch)

    def seconds(side: str, evaluations: int) -> float:
        step, ask, look = (by_name[n][f"{side}_seconds"] for n in ("training-step", "acquisition", "evaluation"))
        return float(steps * step + IMAGES * ask + evaluations * VAL * look)

    before, now = seconds("reference", EPOCHS), seconds("alseg", 1)
    row = {"name": "round, extrapolated", "unit": "round", "reference_seconds": before, "alseg_seconds": now}
    return row | {"ratio": before / now}


def show(found: list[dict[str, Any]], precision: torch.dtype) -> None:
    """The table, and what it was measured on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "reference s", "alseg s", "ratio", "ratio's range"):
        table.add_column(title, justify="left" if not title else "right")
    for row in found:
        spread = f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}" if "ratio_low" in row else ""
        cells = (f"{row['reference_seconds']:.4g}", f"{row['alseg_seconds']:.4g}", f"{row['ratio']:.2f}", spread)
        table.add_row(f"{row['name']}, a {row['unit']}", *cells)
    console = Console()
    console.print(table)
    where = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    where += f" with {torch.backends.cpu.get_cpu_capability()}"
    console.print(f"{where}; reference in float32, alseg in {str(precision).removeprefix('torch.')}", style="dim")


if __name__ == "__main__":
    main()
