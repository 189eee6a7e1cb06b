"""python -m benchmarks.counts: the multiplications of each way, and the ratio that they alone would predict.

Counted by torch's FlopCounterMode in forward passes, two for each multiplication with its addition; a training step is
three times that on both sides. What is not a product of matrices or a convolution is not counted.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from alseg.engine.train import point_loss
from benchmarks import reference
from benchmarks.material import Material, generated, labels_of, model, sparse_masks
from benchmarks.rows import first_batch

SIZE = (360, 480)
DENSE = "training step decoded densely"


def main() -> None:
    """Print a table, or with --json a list of the same."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.counts", description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=10, help="labelled in each image")
    parser.add_argument("--encoder", default="mobilenetv2_100")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = counts(arguments.encoder, arguments.batch, arguments.pixels)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print("| | reference | alseg | ratio |\n| --- | --- | --- | --- |")
    for row in found:
        print(f"| {row['name']} | {row['reference']:.1f} | {row['alseg']:.1f} | {row['ratio']:.1f} |")


def counts(encoder: str, batch_size: int, pixels: int, size: tuple[int, int] = SIZE) -> list[dict[str, Any]]:
    """GFLOP of a forward pass by the reference and by alseg, for each of what is timed."""
    with tempfile.TemporaryDirectory() as folder:
        images = generated(Path(folder), batch_size, size)
        labels = labels_of(images, pixels)
        material = Material(images, labels, sparse_masks(images, labels), batch_size, pixels, "float32")
        batch = first_batch(material)
    network: Any = model(encoder)
    plain = reference.plain(network.eval())
    one = batch.images[:1]
    with torch.no_grad():
        step = counted(lambda: reference.full_size_logits(plain.train(), batch.images))
        dense = counted(lambda: reference.full_size_logits(plain.eval(), one))
        ours = {
            "training step at the points, a batch": counted(lambda: point_loss(trained(plain), batch, True)),
            f"{DENSE}, a batch": counted(lambda: point_loss(trained(plain), batch, False)),
            "acquisition or evaluation, an image": counted(lambda: network.decode(network.encode(one))),
        }
        height, width = ((side + 3) // 4 for side in size)
        second = counted(lambda: network.second(torch.zeros(1, network.second[0].in_channels, height, width)))
        # F(4x4, 3x3) takes 36 multiplications where 144 were
        for name, times in (("acquisition or evaluation, an image", 1), (f"{DENSE}, a batch", batch_size)):
            ours[f"{name}, in float32 by Winograd"] = ours[name] - times * second * 3 // 4
    rows = []
    for name, count in ours.items():
        before = step if name.startswith("training") else dense
        rows.append({"name": name, "reference": before / 1e9, "alseg": count / 1e9, "ratio": before / count})
    return rows


def trained(network: Any) -> Any:
    """A copy in training mode."""
    return copy.deepcopy(network).train()


def counted(call: Callable[[], object]) -> int:
    """Operations of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
