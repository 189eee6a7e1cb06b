"""Everything that wants a GPU, in named pieces, in calls of a few minutes.

    python -m benchmarks.gpu --data CAMVID --weights FILE --state DIR --minutes 9

Each piece leaves its figures in DIR as JSON; a later call goes on with what is left. A piece begins only where the time
left is enough for it; whole runs begin with a minute or two left, are interrupted at the end of the time and resumed by
the next call. DIR/gpu.md shows all figures there are; a call with another encoder, batch or the like is refused, since
they would stand on one page. --pack FILE.tar.gz keeps DIR without the models after each piece, --unpack takes it up
again. Words after -- go to `alseg run`.

Exit codes: 0 all is measured, 3 something is left, 1 nothing is left but what failed.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alseg.engine.device import choose_device, describe_device, keep_freed_memory
from alseg.writing import write_whole
from benchmarks import gpu_pieces, gpu_runs
from benchmarks.gpu_page import page
from benchmarks.material import Material, camvid, is_lossy, labels_of, model, sparse_masks
from benchmarks.together import counts
from examples.paper.camvid import pack, unpack

Work = Callable[[argparse.Namespace, Material, nn.Module], dict[str, Any]]
Runs = Callable[[argparse.Namespace, float], dict[str, Any] | None]

BEGUN = "arguments.json"  # with which the pieces of a state folder were measured
RESERVE = 12  # seconds at a call's end, to stop what runs and to pack


@dataclass(frozen=True)
class Piece:
    """What is measured together; seconds: how long it may take, or how many must be left for it to begin.

    work: is done in a process of its own. runs: starts `alseg` itself, and gives None where the time is over before.
    """

    name: str
    seconds: float
    work: Work | None = None
    runs: Runs | None = None


PIECES = (
    Piece("checks", 45, gpu_pieces.checks),
    Piece("roofline", 45, gpu_pieces.roofline),
    Piece("table", 60, gpu_pieces.table),
    Piece("profile", 45, gpu_pieces.profile),
    Piece("cityscapes-acquisition", 60, gpu_pieces.cityscapes_acquisition),
    Piece("together", 180, gpu_pieces.at_once),
    Piece("recipe", 60, runs=gpu_runs.recipe),
    Piece("recipe-dense", 60, runs=partial(gpu_runs.recipe, decode="dense")),
    Piece("equivalence", 120, runs=gpu_runs.equivalence),
    Piece("camvid", 60, runs=gpu_runs.paper),
)


def main() -> int:
    """Measure what is left and there is time for."""
    parser = options()
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    if arguments.piece is not None:
        return alone(next(piece for piece in PIECES if piece.name == arguments.piece), arguments)
    if not set(arguments.only) <= {piece.name for piece in PIECES}:
        parser.error(f"--only takes some of {', '.join(piece.name for piece in PIECES)}")
    longest = max(piece.seconds for piece in chosen(arguments)) * arguments.pace + RESERVE
    if 60 * arguments.minutes < longest:
        parser.error(f"--minutes must be {longest / 60:.1f} at least, for a piece takes as long")
    end = time.monotonic() + 60 * arguments.minutes - RESERVE
    if arguments.unpack is not None:
        unpack(arguments.unpack, arguments.state)
    decided, begun = deciding(arguments), arguments.state / BEGUN
    for name, value in json.loads(begun.read_text(encoding="utf-8")).items() if begun.exists() else ():
        if decided.get(name) != value:
            parser.error(f"{begun.parent} was begun with {name} {value or 'left out'}: give that, or another --state")
    failed: dict[str, str] = {}
    for piece in left(arguments):
        if end - time.monotonic() < piece.seconds * arguments.pace:
            continue
        print(f"benchmarks.gpu: {piece.name}", flush=True)
        write_whole(begun, (json.dumps(decided, indent=1) + "\n").encode())
        try:
            (follow if piece.work else go_on)(piece, arguments, end)
        except gpu_runs.PieceFailed as error:
            failed[piece.name] = str(error)
        keep(arguments, failed)
    text = keep(arguments, failed)
    print(text)
    remaining = {piece.name for piece in left(arguments)}
    return 3 if remaining - set(failed) else int(bool(failed))


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="a CamVid folder")
    parser.add_argument("--weights", required=True, help="of the encoder: a file, or none")
    parser.add_argument("--state", type=Path, required=True, help="where the figures and the runs are")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--unpack", type=Path)
    everything = [piece.name for piece in PIECES]
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=everything, help="these pieces, separated by commas"
    )
    parser.add_argument("--pace", type=float, default=1, help="factor on how long pieces are thought to take")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--images", type=int, default=64, help="of CamVid that are asked, evaluated and trained on")
    parser.add_argument("--batch", type=int, default=4, help="of training")
    parser.add_argument("--pixels", type=int, default=10, help="labelled in each image")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="training steps that are profiled")
    parser.add_argument("--runs", type=counts, default=[1, 2, 3, 4], help="how many at once")
    parser.add_argument("--epochs", type=int, default=10, help="of each of those")
    parser.add_argument("--city-images", type=int, default=2975)
    parser.add_argument("--city-size", default="512x1024")
    parser.add_argument("--equivalence-seeds", type=int, default=31, help="that are trained by both decoders")
    parser.add_argument("--equivalence-epochs", type=int, default=20)
    parser.add_argument("--equivalence-size", default="360x480")
    parser.add_argument("--split", default="val", help="on which the recipe's runs are scored")
    parser.add_argument("--piece", help=argparse.SUPPRESS)
    parser.add_argument("more", nargs="*", metavar="-- WORDS")
    return parser


def deciding(arguments: argparse.Namespace) -> dict[str, str]:
    """What all figures of a state folder are made with, by how it is given; the page says the rest beside each."""
    names = ("encoder", "images", "batch", "pixels", "split")
    found = {f"--{name}": str(getattr(arguments, name)) for name in names}
    return found | {"--weights": Path(arguments.weights).name, "words after --": shlex.join(arguments.more)}


def chosen(arguments: argparse.Namespace) -> list[Piece]:
    """The pieces that --only names, or all."""
    return [piece for piece in PIECES if piece.name in arguments.only]


def left(arguments: argparse.Namespace) -> Iterator[Piece]:
    """The chosen pieces that have no figures yet."""
    return (piece for piece in chosen(arguments) if not (arguments.state / f"{piece.name}.json").exists())


def follow(piece: Piece, arguments: argparse.Namespace, end: float) -> None:
    """Do a piece's work in a process of its own, so that an error of the GPU ends with it; PieceFailed."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--piece", piece.name, *sys.argv[1:]]
    code = gpu_runs.exit_code(command, end)
    if code is None:
        raise gpu_runs.PieceFailed("it took longer than the time there was")
    if code:
        note = arguments.state / f"{piece.name}.failed.txt"
        raise gpu_runs.PieceFailed(note.read_text().strip().splitlines()[-1] if note.exists() else f"exit code {code}")


def go_on(piece: Piece, arguments: argparse.Namespace, end: float) -> None:
    """Go on with a piece's runs until they are complete or the time is over; PieceFailed."""
    assert piece.runs is not None
    figures = piece.runs(arguments, end)
    if figures is not None:
        write(piece, arguments, figures, figures.pop("device"))


def alone(piece: Piece, arguments: argparse.Namespace) -> int:
    """A piece's work in this process; 1 where it fails, with the traceback beside the figures."""
    assert piece.work is not None
    note = arguments.state / f"{piece.name}.failed.txt"
    try:
        keep_freed_memory()
        started, device = time.perf_counter(), choose_device(arguments.device)
        images = camvid(arguments.data, arguments.images)
        labels = labels_of(images, arguments.pixels)
        masks = sparse_masks(images, labels)
        material = Material(images, labels, masks, arguments.batch, arguments.pixels, device=device)
        # on a GPU of others' no piece that starts processes may hold memory of its own
        network = model(arguments.encoder, weights=arguments.weights)
        if piece.name != "together":
            network = network.to(device)
        figures = piece.work(arguments, material, network)
        figures["piece_seconds"] = time.perf_counter() - started
        write(piece, arguments, figures, describe_device(device))
    except Exception:
        text = traceback.format_exc()
        note.write_text(text)
        print(text, file=sys.stderr)
        return 1
    note.unlink(missing_ok=True)
    return 0


def write(piece: Piece, arguments: argparse.Namespace, figures: dict[str, Any], device: str) -> None:
    """Leave a piece's figures, whole or not at all."""
    where = {"device": device, "torch": torch.__version__, "lossy": is_lossy(arguments.data)}
    text = json.dumps({**where, **figures}, indent=1) + "\n"
    write_whole(arguments.state / f"{piece.name}.json", text.encode())


def keep(arguments: argparse.Namespace, failed: dict[str, str]) -> str:
    """Write the page of all there is, and pack; the page."""
    text = page(arguments.state, [piece.name for piece in PIECES], failed)
    (arguments.state / "gpu.md").write_text(text)
    if arguments.pack is not None:
        pack(arguments.state, arguments.pack)
    return text


if __name__ == "__main__":
    sys.exit(main())
