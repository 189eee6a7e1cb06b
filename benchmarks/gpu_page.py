"""The page of `benchmarks.gpu`: all figures there are, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.equivalence import verdict
from benchmarks.material import DISTINCT
from benchmarks.together import table as table_of_runs

Figures = Mapping[str, Any]

RECIPE_TARGET = 4 * 60  # seconds of the whole CamVid recipe on an H200
CITY_TARGET = 20  # seconds of asking 2975 images of 512x1024
SEEDS = "equivalence-seeds.json"  # of both decoders, a line a seed
TIMES_TARGET = 10  # how much slower the reference should be, at least


def page(state: Path, names: Sequence[str], failed: Mapping[str, str]) -> str:
    """A section for each piece in a state folder that has figures, and what is left."""
    found = {
        name: json.loads((state / f"{name}.json").read_text()) for name in names if (state / f"{name}.json").exists()
    }
    parts = ["# Measured on a GPU"]
    for name, figures in found.items():
        parts += [f"## {name}", f"{origin(figures)}.", SECTIONS[name](figures, found)]
    if "equivalence" not in found and (rows := seeds_so_far(state)):
        parts += ["## equivalence, so far", equivalence({"rows": rows}, found)]
    if len(found) < len(names):
        parts.append("Not measured yet: " + ", ".join(name for name in names if name not in found) + ".")
    parts += [f"Failed: {name}: {what}" for name, what in failed.items()]
    return "\n\n".join(parts) + "\n"


def seeds_so_far(state: Path) -> list[dict[str, Any]]:
    """Of both decoders, as a comparison that is not complete has left them."""
    path = state / SEEDS
    return list(json.loads(path.read_text())) if path.exists() else []


def origin(figures: Figures) -> str:
    """On what a piece was measured."""
    lossy = "; a lossy copy of CamVid" if figures["lossy"] else ""
    return f"{figures['device']}; torch {figures['torch']}{lossy}"


def rows_of(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    """Such as 12.3 ms, 4.56 s, 7.8 min or 2.3 h."""
    for unit, size, least in (("h", 3600, 6000), ("min", 60, 100), ("s", 1, 1)):
        if seconds >= least:
            return f"{seconds / size:.3g} {unit}"
    return f"{1000 * seconds:.3g} ms"


def checks(figures: Figures, found: Mapping[str, Figures]) -> str:
    """Recorded steps beside plain ones, and the precisions."""
    precision = figures["precision"]
    lines = [
        f"- bfloat16 beside float32: utilities differ by {precision['mean_difference']:.2g} on average, correlation "
        f"{precision['correlation']:.4f}; same class at {precision['same_class']:.2%} of the pixels, "
        f"{precision['same_candidates']:.1%} of the 5 % most useful in common",
        f"- loss of the first training step {figures['first_loss']:.3f}, of the last {figures['last_loss']:.3f}",
    ]
    if "graph" in figures:
        graph = figures["graph"]
        said = " ".join([*figures["not_recorded"], *graph["not_recorded"]]) or "all were recorded as CUDA graphs"
        lines.append(
            f"- losses of recorded float32 steps differ from plain ones' by {graph['worst']:.2g} of these at most"
        )
        lines.append(f"- {said}")
    return "\n".join(lines)


def roofline(figures: Figures, found: Mapping[str, Figures]) -> str:
    """Ceilings and shares."""
    copied, multiplied = figures["copy_bytes_per_second"], figures["flops_per_second"]
    rows = []
    for part in figures["parts"]:
        seconds = part["seconds"]
        shares = (part["flops"] / seconds / multiplied, part["bytes"] / seconds / copied)
        sizes = (f"{part['flops'] / 1e9:.4g} GFLOP", f"{part['bytes'] / 1e9:.3g} GB")
        rows.append((part["name"], *sizes, duration(seconds), *(f"{share:.1%}" for share in shares)))
    return (
        f"A copy moves {copied / 1e12:.3g} TB/s, counting what it reads and writes; a product of bfloat16 matrices "
        f"does {multiplied / 1e12:.4g} TFLOP/s. Bytes are those that each operator on its own reads and writes.\n\n"
        + rows_of(("", "FLOPs", "bytes", "time", "of the multiplication rate", "of the copy's rate"), rows)
    )


def table(figures: Figures, found: Mapping[str, Figures]) -> str:
    """The rows, and the training step in its ways."""
    rows = []
    for row in figures["rows"]:
        spread = f"{row['ratio_low']:.1f} to {row['ratio_high']:.1f}" if "ratio_low" in row else ""
        peaks = [f"{row[key]:.0f}" for key in ("reference_peak_mb", "alseg_peak_mb") if key in row]
        times = (duration(row["reference_seconds"]), duration(row["alseg_seconds"]), f"{row['ratio']:.1f}")
        name = row["name"] if row["name"].startswith("round") else f"{row['name']}, {row['unit']}"
        rows.append((name, *times, spread, " / ".join(peaks)))
    steps = [
        (step["decode"], "on" if step["cuda_graph"] else "off", duration(step["seconds"]), *step["not_recorded"])
        for step in figures["steps"]
    ]
    return (
        rows_of(("", "reference", "alseg", "ratio", "range", "peak MB"), rows)
        + "\n\nThe training step:\n\n"
        + rows_of(("`train.decode`", "`train.cuda_graph`", "a step"), steps)
    )


def profile(figures: Figures, found: Mapping[str, Figures]) -> str:
    """A whole step, and how busy the GPU is."""
    steps, busy = figures["steps"], figures["busy_seconds"]
    text = f"A whole training step, augmentation included, takes {duration(figures['seconds'] / steps)}"
    text += f" ({duration(figures['profiled_seconds'] / steps)} under the profiler)."
    if busy is not None:
        text += f" The GPU works for {duration(busy / steps)} of it: busy {busy / figures['seconds']:.0%} of the time."
    calls = ", ".join(f"{name} {count / steps:.1f}" for name, count in figures["kernels"].items())
    return text + (f" Calls a step: {calls}." if calls else "") + " By operator: profile.txt."


def recipe(figures: Figures, found: Mapping[str, Figures]) -> str:
    """The recipe's phases beside the reference's, extrapolated."""
    total, rounds = figures["total_seconds"], figures["rounds"]
    phases = ", ".join(f"{name} {duration(seconds)}" for name, seconds in figures["seconds"].items())
    text = (
        f"{rounds} rounds, trained by {figures['decode']}, in {duration(total)} ({phases}); the target is "
        f"{duration(RECIPE_TARGET)} on an H200: "
        f"{met(total <= RECIPE_TARGET)}. Start, reports and what was done twice after an interruption included: "
        f"{duration(sum(figures['call_seconds']))} in {len(figures['call_seconds'])} calls."
    )
    if "table" in found:
        rows = {row["name"]: row["reference_seconds"] for row in found["table"]["rows"]}
        names = {"points": "round, extrapolated", "dense": "round decoded densely, extrapolated"}
        before = sum(rows[names[decode]] for decode in figures["decodes"])
        text += (
            f" The reference would take {duration(before)}, extrapolated from its timed steps on "
            f"{found['table']['device']}: {before / total:.1f} times as long; the target is {TIMES_TARGET}: "
            f"{met(before >= TIMES_TARGET * total)}."
        )
    scores = [(f"{pixels:.0f}", "" if miou is None else f"{100 * miou:.1f}") for pixels, miou in figures["miou"]]
    return text + "\n\n" + rows_of(("pixels an image", f"mIoU {figures['split']}"), scores)


def met(yes: bool) -> str:
    """Whether a target is met."""
    return "met" if yes else "missed"


def cityscapes(figures: Figures, found: Mapping[str, Figures]) -> str:
    """Asking a large pool."""
    own, half = figures["own_seconds"], figures["half_seconds"]
    return (
        f"{figures['images']} images of {figures['size']} in memory, of which at most {DISTINCT} are distinct: asked "
        f"in {duration(own)} where the model sees them at their own size, in {duration(half)} at half of it; the "
        f"target for 2975 of 512x1024 is {CITY_TARGET} s: {met(own <= CITY_TARGET)}."
    )


def together(figures: Figures, found: Mapping[str, Figures]) -> str:
    """Runs at once."""
    return f"Runs of one round of {figures['epochs']} epochs.\n\n" + table_of_runs(figures["rows"])


def equivalence(figures: Figures, found: Mapping[str, Figures]) -> str:
    """The decoder at the points beside the dense one."""
    rows = figures["rows"]
    of = f"{len(rows)} seeds, {rows[0]['size']}, {rows[0]['epochs']} epochs, batch {rows[0]['batch']}, scored on val."
    return f"{of}\n\n{verdict(rows)}"


def camvid(figures: Figures, found: Mapping[str, Figures]) -> str:
    """The paper's line beside the published one."""
    return str(figures["text"])


SECTIONS: dict[str, Callable[[Figures, Mapping[str, Figures]], str]] = {
    "checks": checks,
    "roofline": roofline,
    "table": table,
    "profile": profile,
    "recipe": recipe,
    "recipe-dense": recipe,
    "cityscapes-acquisition": cityscapes,
    "together": together,
    "equivalence": equivalence,
    "camvid": camvid,
}
