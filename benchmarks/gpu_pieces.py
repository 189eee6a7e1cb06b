"""What `benchmarks.gpu` measures within a process of its own: each piece gives its figures as a JSON object."""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from alseg.engine.batches import Batch
from alseg.engine.device import inferring
from alseg.engine.images import DecodedImages
from alseg.engine.predict import predict
from alseg.engine.steps import CUDAGraph, Recorded, Recorder
from alseg.engine.train import point_loss
from alseg.options import Size
from alseg.settings import TrainSettings
from benchmarks import together
from benchmarks.__main__ import measured, timed, whole_round
from benchmarks.counts import counted, trained
from benchmarks.hardware import Traffic, busy_seconds, copy_rate, multiplication_rate, profiled
from benchmarks.material import CITY, CLASSES, DISTINCT, Material, Repeated, model
from benchmarks.rows import acquisition, asking, batches, first_batch, rows, trainer

Figures = dict[str, Any]
STEPS = 10  # in a timed series


def checks(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """Do recorded steps train as plain ones, and does bfloat16 ask for the same pixels as float32?"""
    trained = copy.deepcopy(network)
    said: list[str] = []
    step = trainer(material, trained, say=said.append)
    losses = [step(batch).clone() for batch in itertools.islice(series(material), arguments.steps)]
    found: Figures = {
        "first_loss": float(losses[0]),
        "last_loss": float(losses[-1]),
        "not_recorded": said,
        "precision": bfloat16_beside_float32(material, trained),
    }
    if material.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # rounding alone may differ; this process ends soon
        found["graph"] = recorded_beside_plain(material, network, lambda _: CUDAGraph())
    return found


def recorded_beside_plain(material: Material, network: nn.Module, recorder: Callable[[nn.Module], Recorder]) -> Figures:
    """Losses of the same float32 steps recorded and plain, without dropout and by the dense decoder."""
    given = list(itertools.islice(series(material), STEPS))
    losses: list[list[float]] = []
    said: list[str] = []
    for records in (False, True):
        ours: Any = copy.deepcopy(network).to(material.device).to(memory_format=torch.channels_last).train()
        for module in ours.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        work = plain_gradients(ours)
        if records:
            work = Recorded(work, ours.parameters(), material.pixels, recorder(ours), said.append)
        descent = torch.optim.SGD(ours.parameters(), lr=0.01)
        losses.append([])
        for batch in given:
            losses[-1].append(float(work(batch)))
            descent.step()
    differences = [abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)]
    return {"plain": losses[0], "recorded": losses[1], "worst": max(differences), "not_recorded": said}


def plain_gradients(ours: Any) -> Callable[[Batch], Tensor]:
    """Forward and backward pass in float32 by the dense decoder."""

    def gradients(batch: Batch) -> Tensor:
        error = point_loss(ours, batch, at_points=False)
        ours.zero_grad(set_to_none=True)
        error.backward()
        return error.detach()

    return gradients


def bfloat16_beside_float32(material: Material, network: nn.Module) -> Figures:
    """Margin utilities of up to eight images in both precisions, beside each other."""
    pixels = [material.images.image(i) for i in range(min(8, len(material.images)))]
    utilities, predicted = [], []
    for precision in (torch.float32, torch.bfloat16):
        with torch.no_grad(), inferring(network, precision) as quick:  # type: ignore[arg-type]
            prediction = predict(quick, pixels, None, material.device, precision)
            first, second = prediction.top2()
            utilities.append((second - first).flatten(1).float())
            predicted.append(prediction.predicted())
    share = max(1, utilities[0].shape[1] // 20)
    asked = [torch.zeros_like(u, dtype=torch.bool).scatter_(1, u.topk(share, 1).indices, True) for u in utilities]
    return {
        "mean_difference": float((utilities[0] - utilities[1]).abs().mean()),
        "correlation": float(torch.corrcoef(torch.stack([u.flatten() for u in utilities]))[0, 1]),
        "same_class": float((predicted[0] == predicted[1]).float().mean()),
        "same_candidates": float((asked[0] & asked[1]).sum() / asked[0].sum()),
    }


def series(material: Material) -> Iterator[Batch]:
    """Augmented batches of full size without end."""
    source = batches(material, DecodedImages(material.images, CLASSES, 2**40))
    for epoch in itertools.count():
        yield from (batch for batch in source.epoch(epoch) if len(batch.images) == material.batch_size)


def roofline(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """The device's measured ceilings, and how near the training step and the acquisition come to them."""
    device = material.device
    copied, multiplied = copy_rate(device), multiplication_rate(device)
    # by torch's own operators, which alone are counted
    plain = trainer(material, copy.deepcopy(network), TrainSettings(cuda_graph=False, fused_norms=False))
    step, batch = trainer(material, copy.deepcopy(network)), first_batch(material)
    forward = trained(network).to(device)
    row = acquisition(material, network)
    # torch counts the gradient of a grouped convolution as if it had one group: a step is three forward passes
    step_flops = 3 * counted(lambda: point_loss(forward, batch, at_points=True))
    work: dict[str, tuple[float, Callable[[], object], Callable[[], object], int]] = {
        # its FLOPs, what its bytes are counted in, what is timed, and how many units a call of that does
        "training step": (step_flops, lambda: plain(batch), lambda: [step(batch) for _ in range(STEPS)], STEPS),
        "acquisition of an image": (counted(row.alseg) / row.per, row.alseg, row.alseg, row.per),
    }
    parts = []
    for name, (flops, once, call, per) in work.items():
        once()
        with Traffic() as traffic:
            once()
        call()
        seconds = statistics.median(timed(call, device) for _ in range(arguments.repeats)) / per
        moved = traffic.bytes / (per if once is call else 1)
        floor = max(flops / multiplied, moved / copied)
        parts.append({"name": name, "flops": flops, "bytes": moved, "seconds": seconds, "floor_seconds": floor})
    return {"copy_bytes_per_second": copied, "flops_per_second": multiplied, "parts": parts}


def table(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """The rows of `python -m benchmarks`, and the training step in four ways."""
    found = [measured(row, arguments.repeats, material.device) for row in rows(material, network)]
    found += [whole_round(found, material.batch_size, decode) for decode in ("points", "dense")]
    batch, steps = first_batch(material), []
    for decode, graph in itertools.product(("points", "dense"), (True, False)):
        if graph and material.device.type == "cpu":
            continue
        said: list[str] = []
        settings = TrainSettings(decode=decode, cuda_graph=graph)  # type: ignore[arg-type]
        step = trainer(material, copy.deepcopy(network), settings, said.append)
        seconds = step_seconds(step, batch, arguments.repeats, material.device)
        steps.append({"decode": decode, "cuda_graph": graph, "seconds": seconds, "not_recorded": said})
    return {"rows": found, "steps": steps}


def step_seconds(step: Callable[[Batch], Tensor], batch: Batch, repeats: int, device: torch.device) -> float:
    """Median seconds of a step, on a GPU in series of STEPS, after one series that is not counted."""
    count = STEPS if device.type == "cuda" else 1

    def many() -> None:
        for _ in range(count):
            step(batch)

    many()
    return statistics.median(timed(many, device) for _ in range(repeats)) / count


def profile(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """Whole training steps, augmentation included: timed, then looked at by torch's profiler.

    A plain step's operators, with their shapes and kernels, are kept as traces for Perfetto: step-points.json.gz and
    step-dense.json.gz.
    """
    step, given, device = trainer(material, copy.deepcopy(network)), series(material), material.device

    def many() -> None:
        for batch in itertools.islice(given, arguments.steps):
            step(batch)

    many()
    seconds = timed(many, device)
    profiler, seconds_profiled = profiled(many, device)
    texts = []
    for title, order in (("device", "self_device_time_total"), ("host", "self_cpu_time_total")):
        averages = profiler.key_averages()
        texts += [f"By {title} time", averages.table(sort_by=order, row_limit=25, max_name_column_width=80)]
    (arguments.state / "profile.txt").write_text("\n".join(texts) + "\n")
    for decode in ("points", "dense"):
        settings = TrainSettings(decode=decode, cuda_graph=False)
        work = partial(trainer(material, copy.deepcopy(network), settings), first_batch(material))
        work()
        profiled(work, device, shapes=True)[0].export_chrome_trace(str(arguments.state / f"step-{decode}.json.gz"))
    busy = busy_seconds(profiler)
    found = {"steps": arguments.steps, "seconds": seconds, "profiled_seconds": seconds_profiled, "busy_seconds": busy}
    return found | {"kernels": launches(profiler)}


def launches(profiler: torch.profiler.profile) -> dict[str, int]:
    """How often the host called what hands work to a GPU."""
    wanted = ("LaunchKernel", "GraphLaunch", "MemcpyAsync", "StreamSynchronize", "DeviceSynchronize")
    return {e.key: e.count for e in profiler.key_averages() if any(word in e.key for word in wanted)}


def cityscapes_acquisition(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """Seconds that asking a pool of Cityscapes' size takes, seen at its own size and at the recipe's half."""
    height, width = map(int, arguments.city_size.split("x"))
    decoded = DecodedImages(Repeated(arguments.city_images, (height, width)), CITY, 2**40, workers=8)
    few = DecodedImages(Repeated(min(DISTINCT, arguments.city_images), (height, width)), CITY, 2**40)
    of_city = model(arguments.encoder, weights=arguments.weights, classes=len(CITY))
    found: Figures = {"images": len(decoded), "size": arguments.city_size}
    for name, size in (("own", None), ("half", Size(height // 2, width // 2))):
        asking(material, of_city, few, CITY, size)()
        call = asking(material, of_city, decoded, CITY, size)
        found[f"{name}_seconds"] = timed(call, material.device)
    return found


def at_once(arguments: argparse.Namespace, material: Material, network: nn.Module) -> Figures:
    """`benchmarks.together` on this device."""
    where = (arguments.data, arguments.weights, arguments.device)
    found = together.measured(arguments.runs, together.run_words(*where, arguments.epochs, arguments.more))
    return {"rows": found, "best": together.best(found), "epochs": arguments.epochs}
