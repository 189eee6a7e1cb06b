"""The pieces of `benchmarks.gpu` that are whole runs: interrupted when the time is over, resumed by the next call."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from alseg.store import read_lines
from benchmarks.gpu_page import SEEDS
from examples.paper import camvid

PHASES = ("train", "acquire", "evaluate")


class PieceFailed(Exception):
    """A piece ended with an error."""


def recipe(arguments: argparse.Namespace, end: float, decode: str = "points") -> dict[str, Any] | None:
    """The whole CamVid recipe, scored on --split by the honest protocol: seconds of its phases over all rounds."""
    name = "recipe" if decode == "points" else f"recipe-{decode}"
    words = ["run", "--dataset", "camvid", "--data", str(arguments.data), "--weights", arguments.weights]
    words += ["--encoder", arguments.encoder, "--split", arguments.split, "--device", arguments.device]
    words += ["-o", f"train.decode={decode}", *arguments.more]
    run, started = arguments.state / name, time.perf_counter()
    code = camvid.go_on(run, words, end)
    calls_file = arguments.state / f"{name}-calls.txt"
    with calls_file.open("a") as calls:
        calls.write(f"{time.perf_counter() - started:.1f}\n")
    if not complete(code, name):
        return None
    records = read_lines(run / "rounds.jsonl")
    seconds = {phase: sum(record[f"{phase}_seconds"] for record in records) for phase in PHASES}
    return {
        "device": devices(records),
        "rounds": len(records),
        "split": records[0]["split"],
        "decode": f"train.decode={decode}",
        "decodes": [record["decode"] for record in records],
        "seconds": seconds,
        "total_seconds": sum(seconds.values()),
        "call_seconds": [float(line) for line in calls_file.read_text().split()],
        "miou": [[record["pixels_per_image"], record["miou"]] for record in records],
    }


def paper(arguments: argparse.Namespace, end: float) -> dict[str, Any] | None:
    """The paper's line and full supervision, by the example's own functions."""
    state = arguments.state / "camvid"
    state.mkdir(exist_ok=True)
    records = []
    for name, words in camvid.commands(arguments.data, arguments.weights).items():
        if not complete(camvid.go_on(state / name, [*words, "--device", arguments.device, *arguments.more], end), name):
            return None
        records += read_lines(state / name / "rounds.jsonl")
    text = camvid.figures(state)
    (state / "camvid.md").write_text(text)
    return {"device": devices(records), "text": text}


def equivalence(arguments: argparse.Namespace, end: float) -> dict[str, Any] | None:
    """Whether the decoder at the points trains as the dense one does, by so many seeds; those done are kept."""
    results = arguments.state / SEEDS
    places = {"data": arguments.data, "weights": arguments.weights, "results": results, "device": arguments.device}
    words = [word for name, place in places.items() for word in (f"--{name}", place)]
    words += ["--minutes", arguments.minutes]  # which ends before, killed with the seed that is being trained
    words += ["--encoder", arguments.encoder, "--batch", arguments.batch, "--seeds", arguments.equivalence_seeds]
    words += ["--epochs", arguments.equivalence_epochs, "--size", arguments.equivalence_size]
    command = [sys.executable, "-m", "benchmarks.equivalence", *map(str, words)]
    code = exit_code(command, end, stdout=subprocess.DEVNULL)
    if code is None:
        return None
    if code:
        raise PieceFailed(f"`benchmarks.equivalence` ended with exit code {code}")
    rows = json.loads(results.read_text())
    if len(rows) < arguments.equivalence_seeds:
        return None
    return {"device": devices(rows), "rows": rows}


def exit_code(command: Sequence[str], end: float, stdout: int | None = None) -> int | None:
    """Of a process; None where the time is over before, and it is ended with those that it has started."""
    process = subprocess.Popen(command, process_group=0, stdout=stdout)
    try:
        return process.wait(max(1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def complete(code: int, name: str) -> bool:
    """Whether a run is, by its exit code; PieceFailed where it ended with an error."""
    if code not in (0, 3):
        raise PieceFailed(f"`alseg` ended the run {name} with exit code {code}")
    return code == 0


def devices(records: Sequence[dict[str, Any]]) -> str:
    """What the rounds were trained on, each once."""
    return " and ".join(dict.fromkeys(record["device"] for record in records))
