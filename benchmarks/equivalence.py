"""Does training with the decoder at the points give what the dense decoder gives?

    python -m benchmarks.equivalence --data CAMVID --weights FILE --results FILE.json --minutes 60

For each seed, a CamVid run of two rounds is trained both ways on the same labels: ten random pixels an image, then 90
more by margin and topk-then-uniform; --last-round spares the dense decoder's training of the first. --results collects
a line a seed; a later call goes on with the next seed, --jobs trains several at once. The paired differences are set
against +-2 points by two one-sided t-tests, and a power calculation says how many seeds that takes (Schuirmann 1987).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import alseg
from alseg.api import RunResult
from alseg.segment import Segmentation
from alseg.store import RunFolder
from alseg_pixelpick import deeplab
from benchmarks.material import camvid, known_mask
from benchmarks.reference import VOID
from benchmarks.seeds import collected, parser_of

MARGIN = 0.02  # of mean IoU and of accuracy; of the loss, in nats
MEASURES = ("miou", "pixel_accuracy", "val_loss")


def main() -> None:
    """Train both ways with further seeds while there is time, and say what all seeds say."""
    parser = parser_of(__doc__, epochs=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--last-round", action="store_true", help="compare at 100 labels only")
    arguments = parser.parse_args()
    settings = {
        "dataset": "camvid",
        "dataset.data": str(arguments.data),
        "model.encoder": arguments.encoder,
        "model.weights": arguments.weights,
        "device": arguments.device,
        "split": "val",
        "size": arguments.size,
        "train.epochs": arguments.epochs,
        "train.batch_size": arguments.batch,
        "first_pixels": 10,
        "pixels_per_round": 90,
        "budget": 100,
        "report": False,
    }
    compared = 1 if arguments.last_round else 0
    print(verdict(collected(arguments, {"encoder": arguments.encoder}, partial(both_ways, settings, compared))))


def both_ways(settings: dict[str, Any], compared: int, seed: int) -> dict[str, Any]:
    """Each way's measures after the rounds from `compared` on, those before None, and the device.

    The dense decoder is trained on the labels that the run at the points asked for.
    """
    deeplab.PATCH_COST = 0  # patches, which are what is compared, also where the map costs less
    with tempfile.TemporaryDirectory() as place:
        points, dense = Path(place) / "points", Path(place) / "dense"
        first = alseg.run(settings | {"seed": seed, "train.decode": "points"}, out=points)
        shutil.copytree(points, dense)
        folder = RunFolder(dense)
        untrain(folder, compared)
        stored = folder.settings()
        stored["train"]["decode"] = "dense"
        folder.write_settings(stored)
        second = alseg.resume(dense)
        device = first.rounds[0]["device"]
        return {"device": device, "points": measures(first, compared), "dense": measures(second, compared)}


def untrain(folder: RunFolder, start: int) -> None:
    """Take the models from round `start` on out of a run, whose labels stay; another setting may train them again."""
    records = folder.rounds()
    (folder.path / "rounds.jsonl").unlink()
    for record in records[:start]:
        del record["settings"]  # by which a resumed run sees that another decoder is to train
        folder.write_round(record)
    for record in records[start:]:
        for name in ("model.safetensors", "confusion.csv"):
            (folder.round_folder(record["round"]) / name).unlink()


def measures(result: RunResult, compared: int) -> list[dict[str, float] | None]:
    """What is compared of each round, how long its training took, and its last epoch's loss."""
    kept = ("miou", "pixel_accuracy", "train_seconds", "loss")
    return [None] * compared + [
        {name: record[name] for name in kept} | {"val_loss": val_loss(result.folder, record["round"])}
        for record in result.rounds[compared:]
    ]


def val_loss(run: Path, round: int) -> float:
    """Mean cross-entropy in nats over the known pixels of val, each image at its own size."""
    segmenter = alseg.Segmenter(run, round=round)
    images = camvid(Path(RunFolder(run).settings()["dataset"]["data"]), split="val")
    total, count = 0.0, 0
    for i in range(len(images)):
        mask = known_mask(images, i)
        total += cross_entropy(segmenter.segment(images.image(i), probabilities=True), mask)
        count += int((mask != VOID).sum())
    return total / count


def cross_entropy(found: Segmentation, mask: np.ndarray) -> float:
    """The sum in nats over the known pixels of a mask [H, W]."""
    assert found.probabilities is not None
    rows, columns = (mask != VOID).nonzero()
    right = found.probabilities[mask[rows, columns], rows, columns].astype(np.float64)
    return -float(np.log(right.clip(1e-12)).sum())


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """A table: mean difference points - dense, its 90 % interval, whether it lies within the margin."""
    lines = ["| labels | measure | dense | points | difference | 90 % interval | equivalent | seeds | needed |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for round, labels in enumerate(("10 random", "100, 90 of them by margin-B")):
        compared = [row for row in rows if row["dense"][round] is not None]
        for name in MEASURES if compared else ():
            dense, points = (np.array([row[way][round][name] for row in compared]) for way in ("dense", "points"))
            *judgement, needed = judged(points - dense)
            cells = [labels, name, f"{dense.mean():.4f}", f"{points.mean():.4f}"]
            cells += [*judgement, str(len(compared)), needed]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def judged(differences: np.ndarray) -> tuple[str, str, str, str]:
    """In words: the mean, its 90 % interval, whether that lies within the margin, and how many seeds it takes."""
    low, high = interval(differences)
    inside = "yes" if low > -MARGIN and high < MARGIN else "not shown"
    needed = seeds_needed(float(differences.std(ddof=1)) if len(differences) > 1 else float("nan"))
    return f"{differences.mean():+.4f}", f"{low:+.4f} to {high:+.4f}", inside, str(needed)


def interval(differences: np.ndarray) -> tuple[float, float]:
    """The 90 % interval of the mean, which is two one-sided tests at 5 %."""
    count = len(differences)
    if count < 2:
        return float("-inf"), float("inf")
    half = stats.t.ppf(0.95, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return float(differences.mean() - half), float(differences.mean() + half)


def seeds_needed(deviation: float, power: float = 0.9) -> int | str:
    """How many pairs show equivalence with this power where there is no difference."""
    for count in range(2, 1000):
        spread = deviation / np.sqrt(count)
        critical = MARGIN - stats.t.ppf(0.95, count - 1) * spread
        if deviation == 0:
            return count
        if critical > 0 and 2 * stats.t.cdf(critical / spread, count - 1) - 1 >= power:
            return count
    return "unknown"


if __name__ == "__main__":
    main()
