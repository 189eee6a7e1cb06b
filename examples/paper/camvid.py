"""The paper's CamVid line and its full supervision, in pieces of a few minutes.

    python examples/paper/camvid.py --data CAMVID --weights FILE --state DIR --minutes 9

Each call goes on where the last one stopped, for at most so many minutes, and exits with 3 while anything is left.
--pack FILE.tar.gz keeps the state without the models, small enough to carry; --unpack takes it up again (a model that
is needed is trained again). When all runs are complete, their figures stand beside the published ones in
DIR/camvid.md. Words after -- go to `alseg run`.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

PUBLISHED = {20: 50.8, 40: 53.9, 60: 55.3, 80: 55.2, 100: 55.9}
PUBLISHED_ALL = 58.2
RUNS = {"margin-b": ["--acquirer", "margin", "--selector", "topk-then-uniform"], "all-pixels": ["--labels", "all"]}


def main() -> int:
    """0 when everything is there, 3 while work is left, else what `alseg` said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--unpack", type=Path)
    parser.add_argument("more", nargs="*", metavar="-- WORDS")
    arguments = parser.parse_args()
    end = time.monotonic() + 60 * arguments.minutes
    arguments.state.mkdir(parents=True, exist_ok=True)
    if arguments.unpack is not None:
        unpack(arguments.unpack, arguments.state)
    code = 0
    for name, words in commands(arguments.data, arguments.weights, arguments.seed).items():
        code = code or go_on(arguments.state / name, [*words, *arguments.more], end)
    if arguments.pack is not None:
        pack(arguments.state, arguments.pack)
    if code == 0:
        page = figures(arguments.state)
        (arguments.state / "camvid.md").write_text(page)
        print(page)
    return code


def commands(data: Path, weights: str, seed: str = "0") -> dict[str, list[str]]:
    """What starts each run, as words for `alseg`, by the name of its folder."""
    words = ["run", "--dataset", "camvid", "--data", str(data), "--weights", weights]
    words += ["--protocol", "paper", "--seed", seed]
    return {f"{name}-{seed}": words + flags for name, flags in RUNS.items()}


def go_on(run: Path, words: Sequence[str], end: float) -> int:
    """Start a run by the words, or resume it, until it is complete or the time is up; 3: it is not complete."""
    words = ["resume", str(run)] if (run / "run.toml").exists() else [*words, "--out", str(run)]
    process = subprocess.Popen([sys.executable, "-m", "alseg", *words])
    try:
        return process.wait(max(1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()  # what is on the disk is whole at any time
            process.wait()
        return 3


def pack(state: Path, archive: Path) -> None:
    """Keep a state folder without its models."""
    unfinished = archive.with_name(f".{archive.name}")
    with tarfile.open(unfinished, "w:gz") as opened:
        for path in sorted(state.rglob("*")):
            if path.is_file() and path.suffix != ".safetensors" and not path.name.startswith("."):
                opened.add(path, path.relative_to(state))
    unfinished.replace(archive)


def unpack(archive: Path, state: Path) -> None:
    """Take a state folder up again."""
    with tarfile.open(archive) as opened:
        # Python 3.11.4 and later can refuse what lies outside the folder
        opened.extractall(state, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def figures(state: Path) -> str:
    """A Markdown table of all complete runs beside the published figures."""
    settings = tomllib.loads(next(state.glob("*/run.toml")).read_text())
    record, train = settings["record"], settings["train"]
    text = (
        f"Weights SHA-256 `{record['weights'].get('sha256') or 'none'}`; {train['epochs']} epochs, batch "
        f"{train['batch_size']}, {train['size']}, {record['precision']}; {record['device']}; "
        f"torch {record['torch']}.\n\n"
        "| pixels an image | seed | mIoU val, last epoch | mIoU test, best epoch | published (test, best epoch) |\n"
        "| --- | --- | --- | --- | --- |\n"
    )
    for run in sorted(state.glob("*/run.toml")):
        everything = tomllib.loads(run.read_text())
        for line in (run.parent / "rounds.jsonl").read_text().splitlines():
            row = json.loads(line)
            dense = everything["labels"] == "all"
            pixels = "all" if dense else f"{row['pixels_per_image']:.0f}"
            published = PUBLISHED_ALL if dense else PUBLISHED.get(round(row["pixels_per_image"]), "")
            ours = f"{100 * row['miou']:.1f} | {100 * row['paper_miou']:.1f} (epoch {row['paper_epoch']})"
            text += f"| {pixels} | {everything['seed']} | {ours} | {published} |\n"
    return text


if __name__ == "__main__":
    sys.exit(main())
