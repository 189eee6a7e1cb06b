"""python -m benchmarks: one table, each row measured side by side in one run."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from alseg.engine.device import choose_device, choose_precision, describe_device, keep_freed_memory
from alseg.errors import AlsegError, UserMistake
from benchmarks.material import Material, camvid, generated, known_mask, labels_of, model, sparse_masks
from benchmarks.reference import VOID
from benchmarks.rows import TRAINING_STEPS, Row, rows

IMAGES, VAL = 367, 101  # of CamVid
EPOCHS = 50


def main() -> None:
    """Measure, print the table, and write the list that --json asks for; one sentence for what cannot be."""
    parser = options()
    try:
        measure(parser.parse_args())
    except AlsegError as error:
        parser.error(str(error))


def measure(arguments: argparse.Namespace) -> None:
    """All that the command line asks for."""
    keep_freed_memory()  # both sides gain
    with tempfile.TemporaryDirectory() as folder:
        material = prepared(arguments, Path(folder))
        network = model(arguments.encoder).to(material.device)
        if arguments.peak is not None:
            print(peak_of(arguments.peak, material, network))
            return
        found = [measured(row, arguments.repeats, material.device) for row in rows(material, network)]
    rounds = [whole_round(found, arguments.batch, decode) for decode in ("points", "dense")]
    for row in found if material.device.type == "cpu" else ():
        row |= {f"{side}_peak_mb": peak(row["name"], side) for side in ("reference", "alseg")}
    found += rounds
    show(found, material)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="a CamVid folder; without it images are generated")
    parser.add_argument("--json", type=writable, help="write the rows to this file")
    parser.add_argument("--size", type=size, default="360x480", help="of generated images, HxW")
    parser.add_argument("--images", type=at_least(2), default=16, help="how many are acquired and evaluated")
    parser.add_argument("--batch", type=at_least(2), default=4, help="of training")
    parser.add_argument("--pixels", type=at_least(1), default=10, help="labelled in each image")
    parser.add_argument("--repeats", type=at_least(1), default=7)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="alseg's")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--peak", metavar="ROW:SIDE", help="print only the MB that one call of a row's side takes")
    return parser


def at_least(least: int) -> Callable[[str], int]:
    """The type of a number from `least` on."""

    def number(text: str) -> int:
        if (found := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{found} is less than {least}")
        return found

    return number


def size(text: str) -> tuple[int, int]:
    """The type of a height and width, written HxW."""
    height, width = map(at_least(1), text.split("x"))
    return height, width


def writable(text: str) -> Path:
    """The type of a file that is written when all is measured."""
    try:
        open(text, "a", encoding="utf-8").close()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot write {text}: {error.strerror}") from error
    return Path(text)


def prepared(arguments: argparse.Namespace, folder: Path) -> Material:
    """What the command line asks to be timed; UserMistake where there is not enough of it."""
    device, count, pixels = choose_device(arguments.device), arguments.images, arguments.pixels
    images = generated(folder, count, arguments.size) if arguments.data is None else camvid(arguments.data, count)
    if len(images) < arguments.batch:
        raise UserMistake(f"A batch of {arguments.batch} takes as many images, and there are {len(images)}.")
    for i in range(len(images)):
        if (known := int((known_mask(images, i) != VOID).sum())) < pixels:
            raise UserMistake(f"The image {images.key(i)} has {known} pixels of a class, and --pixels is {pixels}.")
    labels = labels_of(images, pixels)
    masks = sparse_masks(images, labels)
    return Material(images, labels, masks, arguments.batch, pixels, arguments.precision, device)


def peak(name: str, side: str) -> float | None:
    """MB that a call takes at most, in a process of its own with this one's arguments; None where that fails."""
    command = [sys.executable, "-m", "benchmarks", *sys.argv[1:], "--peak", f"{name}:{side}"]
    done = subprocess.run(command, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None


def peak_of(choice: str, material: Material, network: nn.Module) -> float:
    """By how many MB this process's resident memory rises during one call, looked at every millisecond."""
    name, _, side = choice.partition(":")
    row = next((row for row in rows(material, network) if row.name == name), None)
    if row is None or side not in ("reference", "alseg"):
        raise UserMistake(
            f"--peak takes a row of the table and reference or alseg, such as decoding:alseg, not {choice}."
        )
    call = threading.Thread(target=getattr(row, side))
    seen = [resident()]
    call.start()
    while call.is_alive():
        seen.append(resident())
        time.sleep(0.001)
    return round((max(seen) - seen[0]) / 1e6, 1)


def resident() -> int:
    """Bytes of memory that this process holds; getrusage's peak holds the imports' own."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measured(row: Row, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds a unit of both sides, taken in turns after one call of each that is not counted; on a GPU its peak MB."""
    found: dict[str, Any] = {"name": row.name, "unit": row.unit}
    times: dict[str, list[float]] = {"reference": [], "alseg": []}
    for side, call in (("reference", row.reference), ("alseg", row.alseg)):
        if device.type == "cuda":
            found[f"{side}_peak_mb"] = device_peak(call, device)
        else:
            call()
    for turn in range(repeats):
        sides = [("reference", row.reference), ("alseg", row.alseg)]
        for side, call in sides if turn % 2 == 0 else sides[::-1]:
            times[side].append(timed(call, device) / row.per)
    before, now = (statistics.median(times[side]) for side in ("reference", "alseg"))
    ratios = [a / b for a, b in zip(times["reference"], times["alseg"], strict=True)]
    return found | {
        "reference_seconds": before,
        "alseg_seconds": now,
        "ratio": before / now,
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }


def device_peak(call: Callable[[], object], device: torch.device) -> float:
    """By how many MB a GPU's allocated memory rises during one call."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return round((torch.cuda.max_memory_allocated(device) - before) / 1e6, 1)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call and of all that it leaves a GPU to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def whole_round(found: Sequence[dict[str, Any]], batch: int, decode: str = "points") -> dict[str, Any]:
    """A round of the CamVid recipe, extrapolated from the rows; the reference evaluates after each epoch.

    decode: where alseg's decoder is computed, at the points or densely.
    """
    by_name = {row["name"]: row for row in found}
    steps = EPOCHS * (IMAGES // batch)

    def seconds(side: str, evaluations: int) -> float:
        names = (TRAINING_STEPS[decode], "augmentation", "acquisition", "evaluation")
        step, change, ask, look = (by_name[name][f"{side}_seconds"] for name in names)
        return float(steps * (step + change) + IMAGES * ask + evaluations * VAL * look)

    before, now = seconds("reference", EPOCHS), seconds("alseg", 1)
    name = "round, extrapolated" if decode == "points" else "round decoded densely, extrapolated"
    row = {"name": name, "unit": "round", "reference_seconds": before, "alseg_seconds": now}
    return row | {"ratio": before / now}


def show(found: list[dict[str, Any]], material: Material) -> None:
    """The table, and what it was measured on."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "reference s", "alseg s", "ratio", "ratio's range", "alseg, a second", "peak MB"):
        table.add_column(title, justify="left" if not title else "right")
    for row in found:
        spread = f"{row['ratio_low']:.2f} to {row['ratio_high']:.2f}" if "ratio_low" in row else ""
        cells = (f"{row['reference_seconds']:.4g}", f"{row['alseg_seconds']:.4g}", f"{row['ratio']:.2f}", spread)
        peaks = [row.get(f"{side}_peak_mb") for side in ("reference", "alseg")]
        memory = "" if None in peaks else " / ".join(f"{mb:.0f}" for mb in peaks)
        table.add_row(f"{row['name']}, {row['unit']}", *cells, f"{1 / row['alseg_seconds']:.3g}", memory)
    console = Console(width=max(120, Console().width))
    console.print(table)
    precision = choose_precision(material.precision, material.device)
    where = f"torch {torch.__version__}, {describe_device(material.device)}, {platform.machine()}"
    where += f" with {torch.backends.cpu.get_cpu_capability()}"
    console.print(f"{where}; reference in float32, alseg in {str(precision).removeprefix('torch.')}", style="dim")


if __name__ == "__main__":
    main()
