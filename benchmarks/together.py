"""How many runs at once does one device serve best?

    python -m benchmarks.together --data CAMVID --weights FILE --runs 1,2,3,4 --device cuda

For each k of --runs, k `alseg run` of one round are started at once, after one that is not counted and fills the
caches. The wall time goes from their common start to the last one's end, imports and all; `a training` is the median of
their `train_seconds`. The threads of a CPU are divided among them. Words after -- go to `alseg run`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class RunFailed(Exception):
    """One of the runs ended with an error."""


def main() -> int:
    """Measure, print the table, and write the list that --json asks for; 1 where a run failed."""
    arguments = understood()
    words = run_words(arguments.data, arguments.weights, arguments.device, arguments.epochs, arguments.more)
    try:
        found = measured(arguments.runs, words)
    except RunFailed as error:
        print(f"benchmarks.together: {error}", file=sys.stderr)
        return 1
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def understood() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.together", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a CamVid folder")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--runs", type=counts, default=[1, 2, 3, 4], help="how many at once, such as 1,2,3,4")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=10, help="of each training")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("more", nargs="*", metavar="-- WORDS")
    return parser.parse_args()


def counts(text: str) -> list[int]:
    """Numbers from 1 on, separated by commas."""
    found = [int(part) for part in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def run_words(data: Path, weights: str, device: str, epochs: int, more: Sequence[str] = ()) -> list[str]:
    """A short run, as words for `alseg`."""
    words = ["run", "--dataset", "camvid", "--data", str(data), "--weights", weights, "--device", device]
    words += ["--rounds", "1", "-o", f"train.epochs={epochs}", "-o", "report=false"]
    return [*words, *more]


def measured(runs: Sequence[int], words: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each number of runs at once; RunFailed where one fails."""
    at_once(1, words)  # file caches, and what libraries compile
    return [at_once(count, words) for count in runs]


def at_once(count: int, words: Sequence[str]) -> dict[str, Any]:
    """Start so many runs together and wait for all."""
    threads = max(1, (os.cpu_count() or 1) // count)
    shared = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / f"run-{i}" for i in range(count)]
        logs = [folder.with_suffix(".txt") for folder in folders]
        started = time.perf_counter()
        processes = []
        try:
            for i, (folder, log) in enumerate(zip(folders, logs, strict=True)):
                command = [sys.executable, "-m", "alseg", *words, "--seed", str(i), "--out", str(folder)]
                with log.open("w") as out:
                    processes.append(subprocess.Popen(command, env=shared, stdout=subprocess.DEVNULL, stderr=out))
            wait_for(processes, logs)
        finally:
            for process in processes:
                process.kill()  # those that are left where another has failed
                process.wait()
        wall = time.perf_counter() - started
        trainings = [json.loads((folder / "rounds.jsonl").read_text())["train_seconds"] for folder in folders]
    return {
        "runs": count,
        "threads": threads,
        "wall_seconds": wall,
        "training_seconds": statistics.median(trainings),
        "runs_an_hour": 3600 * count / wall,
        "trainings_an_hour": 3600 * count / max(trainings),
    }


def wait_for(processes: Sequence[subprocess.Popen[bytes]], logs: Sequence[Path]) -> None:
    """Until all have ended; RunFailed as soon as one fails."""
    left = set(range(len(processes)))
    while left:
        for i in sorted(left):
            code = processes[i].poll()
            if code is None:
                continue
            left.discard(i)
            if code:
                said = logs[i].read_text().strip().splitlines() or [f"exit code {code}"]
                raise RunFailed(f"run {i + 1} of {len(processes)} at once failed: {said[-1]}")
        time.sleep(0.02)


def best(found: Sequence[dict[str, Any]]) -> int:
    """With how many at once most runs end in an hour."""
    row = max(found, key=lambda row: row["runs_an_hour"])
    return int(row["runs"])


def table(found: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, and which number serves best."""
    lines = ["| runs at once | wall time | runs an hour | a training | trainings an hour, start left out |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in found:
        times = (f"{row['wall_seconds']:.1f} s", f"{row['runs_an_hour']:.0f}", f"{row['training_seconds']:.1f} s")
        lines.append(f"| {row['runs']} | {' | '.join(times)} | {row['trainings_an_hour']:.0f} |")
    return "\n".join([*lines, "", f"{best(found)} at once serve best."])


if __name__ == "__main__":
    sys.exit(main())
