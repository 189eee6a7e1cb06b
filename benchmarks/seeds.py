"""Comparisons over seeds: a line a seed in a file that a later call goes on with."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from alseg.writing import write_whole

Row = dict[str, Any]


def parser_of(description: str | None, epochs: int) -> argparse.ArgumentParser:
    """The command line of a comparison over seeds; epochs: how many a training has by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--size", default="180x240")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=60, help="no seed is begun after these")
    parser.add_argument("--seeds", type=int, default=100, help="and none beyond so many")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on its share of the CPU's cores")
    return parser


def collected(
    arguments: argparse.Namespace, made_with: Mapping[str, Any], one: Callable[[int], Mapping[str, Any]]
) -> list[Row]:
    """Every seed's line, with further seeds while there is time.

    one: a seed's measures, by a function that is sent to another process. made_with: what all lines of a file have in
    common besides size and epochs; SystemExit where it holds others.
    """
    common = {"size": arguments.size, "epochs": arguments.epochs, "batch": arguments.batch, **made_with}
    common["weights"] = Path(arguments.weights).name
    end = time.monotonic() + 60 * arguments.minutes
    rows: list[Row] = json.loads(arguments.results.read_text()) if arguments.results.exists() else []
    for name, value in common.items():
        if any(row.get(name, value) != value for row in rows):
            raise SystemExit(f"{arguments.results} holds seeds of another {name}: give another --results.")
    started = {row["seed"] for row in rows}
    with ProcessPoolExecutor(arguments.jobs, get_context("spawn"), share_cores, (arguments.jobs,)) as pool:
        running: dict[Future[Mapping[str, Any]], int] = {}
        failed: BaseException | None = None
        while True:
            while (
                failed is None
                and len(running) < arguments.jobs
                and len(started) < arguments.seeds
                and time.monotonic() < end
            ):
                seed = next(seed for seed in itertools.count() if seed not in started)
                started.add(seed)
                running[pool.submit(one, seed)] = seed
            if failed is not None and not running:
                raise failed  # after those beside it, whose measures are kept
            if not running:
                return rows
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                error, seed = future.exception(), running.pop(future)
                if error is not None:
                    failed = failed or error
                    continue
                rows.append({"seed": seed, **common, **future.result()})
                rows.sort(key=lambda row: row["seed"])
                write_whole(arguments.results, (json.dumps(rows, indent=1) + "\n").encode())
                print(rows[-1], flush=True)


def share_cores(jobs: int) -> None:
    """Let this process compute on its share of the CPU's cores."""
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
