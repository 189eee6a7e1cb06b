"""Is accuracy paid for speed? The reference's way of training against alseg's on the same labels and seeds.

    python -m benchmarks.accuracy --data CAMVID --weights FILE --results FILE.json --minutes 60

CamVid is scaled to --size first, masks by nearest neighbour. For each seed one model is trained on ten random pixels
an image in each of three ways, from the same initial weights and drawn augmentations, and scored on val:

    reference   benchmarks/reference.py: contiguous float32, dense masks, full-size logits, labels by nearest neighbour
    nearest     alseg's engine, the labels by nearest neighbour
    alseg       alseg's engine as it is by default, where a label keeps its place

--results collects a line a seed; a later call goes on with the next seed. Differences are paired by seed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

import alseg
from alseg.config import stored_config
from alseg.engine.augment import draw_geometry, draws_of
from alseg.engine.batches import batch_plan
from alseg.engine.device import keep_freed_memory
from alseg.engine.train import rate_factors
from alseg.models import Models
from alseg.plugins import load_plugins
from alseg.settings import Augmentation, TrainSettings
from alseg.store import RunFolder
from alseg.values import Classes
from benchmarks import reference
from benchmarks.equivalence import MEASURES, cross_entropy, judged
from benchmarks.material import CLASSES, CPU, camvid, known_mask, sparse_masks
from benchmarks.reference import VOID
from benchmarks.seeds import collected, parser_of

WAYS = ("reference", "nearest", "alseg")
PAIRS = (("reference", "alseg"), ("reference", "nearest"), ("nearest", "alseg"))


def main() -> None:
    """Train each way with further seeds while there is time, and say what all seeds say."""
    parser = parser_of(__doc__, epochs=6)
    parser.add_argument("--images", type=int, help="of each split; all without it")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    with tempfile.TemporaryDirectory() as place:
        data = scaled(arguments.data, Path(place) / "data", (height, width), arguments.images)
        settings = {
            "dataset": "camvid",
            "dataset.data": str(data),
            "model.encoder": arguments.encoder,
            "model.weights": arguments.weights,
            "split": "val",
            "size": arguments.size,
            "train.epochs": arguments.epochs,
            "train.batch_size": arguments.batch,
            "budget": 10,
            "device": "cpu",
            "report": False,
        }
        rows = collected(
            arguments,
            {"encoder": arguments.encoder, "images": arguments.images},
            partial(each_way, settings, data, Path(place)),
        )
    print(verdict(rows))


def scaled(data: Path, out: Path, size: tuple[int, int], count: int | None = None) -> Path:
    """A CamVid folder of so many images in train and val, all of one size (H, W)."""
    for split in ("train", "val"):
        images = camvid(data, count, split)
        for folder in (split, f"{split}annot"):
            (out / folder).mkdir(parents=True)
        for i in range(len(images)):
            image, mask = Image.fromarray(images.image(i)), known_mask(images, i)
            values = Image.fromarray(np.where(mask == VOID, len(CLASSES), mask).astype(np.uint8))
            name = f"{Path(images.key(i)).stem}.png"
            image.resize(size[::-1], Image.Resampling.BOX).save(out / split / name)
            values.resize(size[::-1], Image.Resampling.NEAREST).save(out / f"{split}annot" / name)
    return out


def each_way(settings: dict[str, Any], data: Path, runs: Path, seed: int) -> dict[str, dict[str, float]]:
    """Each way's measures; all are trained on the labels of alseg's run."""
    keep_freed_memory()
    found, place = {}, runs / f"seed {seed}"
    for way, labels in (("alseg", "exact"), ("nearest", "nearest")):
        run = alseg.run(settings | {"seed": seed, "augment.labels": labels}, out=place / way)
        found[way] = scores(run.folder, data) | {"seconds": run.rounds[0]["train_seconds"]}
    folder = RunFolder(place / "alseg")  # its model gives way to the reference's
    started = time.perf_counter()
    network = trained_plainly(folder, data)
    seconds = time.perf_counter() - started
    folder.write_model(0, network, {})
    found["reference"] = scores(folder.path, data, "float32") | {"seconds": seconds}
    return {way: found[way] for way in WAYS}


def trained_plainly(folder: RunFolder, data: Path) -> nn.Module:
    """A model trained by the reference's steps on a run's labels, begun as the run's own."""
    registry = load_plugins(third_party=False)
    config = stored_config(registry, folder.settings(), ("model",))
    settings, change = config.train, config.augment
    model = reference.plain(Models(registry, config, len(CLASSES), CPU).fresh()).train()  # type: ignore[arg-type]
    groups = [
        {"params": list(part), "lr": settings.learning_rate * (settings.encoder_rate if name == "encoder" else 1)}
        for name, part in model.parameter_groups().items()  # type: ignore[operator]
    ]
    descent = torch.optim.Adam(groups, weight_decay=settings.weight_decay)
    steps_of(model, descent, folder, data, settings, change, config.seed)
    return model


def steps_of(
    model: nn.Module,
    descent: torch.optim.Optimizer,
    folder: RunFolder,
    data: Path,
    settings: TrainSettings,
    change: Augmentation,
    seed: int,
) -> None:
    """All the reference's steps of a training, on images augmented one after the other."""
    images = camvid(data)
    assert settings.size is not None and known_mask(images, 0).shape == tuple(settings.size)
    classes = Classes(tuple(folder.settings()["record"]["classes"]), VOID)
    masks = torch.from_numpy(sparse_masks(images, folder.labels(), classes))
    assert (masks != VOID).sum() == len(folder.labels())
    keys = [images.key(i) for i in range(len(images))]
    plan = batch_plan(len(images), settings.batch_size)
    factors = iter(rate_factors(settings, len(plan)))
    bases = [group["lr"] for group in descent.param_groups]
    order, random = np.arange(len(images)), np.random.default_rng(seed)
    torch.manual_seed(seed)
    for epoch in range(settings.epochs):
        draws = draws_of(seed, 0, epoch, keys)
        random.shuffle(order)
        for places in plan:
            factor = next(factors)
            for group, base in zip(descent.param_groups, bases, strict=True):
                group["lr"] = base * factor
            batch, truth = [], []
            for i in order[places]:
                image = torch.from_numpy(images.image(i).copy()).permute(2, 0, 1)
                size = (image.shape[1], image.shape[2])
                geometry = draw_geometry(draws[i], size, size, change.scale, change.flip)
                batch.append(reference.augmented(image, geometry, draws[i], change))
                truth.append(reference.augmented_mask(masks[i], geometry))
            reference.training_step(model, descent, torch.stack(batch), torch.stack(truth))


def scores(run: Path, data: Path, precision: str = "auto") -> dict[str, float]:
    """Mean IoU, accuracy and mean cross-entropy in nats over the known pixels of val, each image at its own size."""
    segmenter, images = alseg.Segmenter(run, device="cpu", precision=precision), camvid(data, split="val")
    matrix, lost = np.zeros((len(CLASSES), len(CLASSES)), np.int64), 0.0
    for i in range(len(images)):
        mask = known_mask(images, i)
        found = segmenter.segment(images.image(i), probabilities=True)
        matrix += reference.confusion(mask, found.mask, len(CLASSES))
        lost += cross_entropy(found, mask)
    right, either = matrix.diagonal(), matrix.sum(0) + matrix.sum(1) - matrix.diagonal()
    return {
        "miou": float((right[either > 0] / either[either > 0]).mean()),
        "pixel_accuracy": float(right.sum() / matrix.sum()),
        "val_loss": lost / int(matrix.sum()),
    }


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """A table of the ways' means, and one of their paired differences with 90 % intervals."""
    lines = ["| way | mIoU | pixel accuracy | cross-entropy | training |", "| --- | --- | --- | --- | --- |"]
    for way in WAYS:
        means = [np.mean([row[way][name] for row in rows]) for name in (*MEASURES, "seconds")]
        lines.append(f"| {way} | {' | '.join(f'{mean:.4f}' for mean in means[:3])} | {means[3]:.0f} s |")
    lines += ["", "| difference | measure | mean | 90 % interval | within 0.02 | seeds needed |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for first, second in PAIRS:
        for name in MEASURES:
            differences = np.array([row[second][name] - row[first][name] for row in rows])
            lines.append(f"| {second} - {first} | {name} | {' | '.join(judged(differences))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
