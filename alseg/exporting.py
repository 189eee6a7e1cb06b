"""A run's model as a file that loads without alseg, checked to give the same output."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alseg import noise
from alseg.engine.device import mode
from alseg.errors import AlsegError, UserMistake
from alseg.grid import resize
from alseg.options import Longer, Size, fitted
from alseg.paths import expanded
from alseg.plugins import Registry
from alseg.segment import Segmenter
from alseg.store import RunFolder
from alseg.writing import write_whole

TOLERANCE = 1e-3  # of a logit, absolute and relative
CLASSES = "classes.json"


class WholeModel(nn.Module):
    """Encoder and decoder in one: images [B, 3, H, W] in [0, 1] -> logits [B, C, H, W]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' own pixels."""
        logits = self.model.decode(self.model.encode(images))
        return resize(logits.float(), (images.shape[-2], images.shape[-1]))


def export_model(
    run: Path | str,
    to: Path | str,
    *,
    round: int | None = None,
    size: Size | Longer | str | None = None,
    registry: Registry | None = None,
) -> Path:
    """Write a run's model for images of one size: `to` ends in .pt2 (torch.export) or .onnx.

    The file takes float32 images [B, 3, H, W] in [0, 1], any number at a time, and gives logits
    [B, C, H, W]; classes.json is in it. What was written is loaded again and must give the same logits.
    size: H x W; None: as the run's evaluation sees its images. Raises UserMistake where `to` exists.
    """
    path = expanded(to)
    write = {".pt2": _write_torch, ".onnx": _write_onnx}.get(path.suffix)
    if write is None:
        raise UserMistake(f"A model is written to a file that ends in .pt2 or .onnx, not to {path.name}.")
    if path.exists():
        raise UserMistake(f"{path} exists: give another --to.")
    if not path.parent.is_dir():
        raise UserMistake(f"There is no folder {path.parent} for the model.")
    segmenter = Segmenter(run, round=round, device="cpu", precision="float32", size=size, registry=registry)
    height, width = _size(segmenter)
    model = WholeModel(segmenter.model)
    images = _random_images(2, (height, width))
    facts = {
        "classes": list(segmenter.classes.names),
        "colours": [list(colour) for colour in segmenter.classes.colours],
        "height": height,
        "width": width,
        "input": "float32 [B, 3, height, width], RGB in [0, 1]",
        "output": "logits [B, C, height, width]",
    }
    with mode(model, False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, on their own code
        content, load = write(model, images, json.dumps(facts))
        _check(path, model, load, (height, width))
    write_whole(path, content)
    return path


def _size(segmenter: Segmenter) -> tuple[int, int]:
    """What the model sees its training images at, where that is one size."""
    images = RunFolder(segmenter.folder).images()
    sizes = {fitted(segmenter.size, (image["height"], image["width"])) for image in images}
    if len(sizes) != 1:
        raise UserMistake("This run's images are seen at several sizes: say with --size HxW which the model is for.")
    return sizes.pop()


Loaded = Callable[[Tensor], Tensor]


def _write_torch(model: nn.Module, images: Tensor, facts: str) -> tuple[bytes, Loaded]:
    batch = torch.export.Dim("batch", min=1, max=2**16)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    file = io.BytesIO()  # torch's own writing ends the process where the disk is full
    torch.export.save(program, file, extra_files={CLASSES: facts})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def _write_onnx(model: nn.Module, images: Tensor, facts: str) -> tuple[bytes, Loaded]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  torch's exporter needs it
    except ImportError as error:
        raise UserMistake(f"ONNX needs the library {error.name}: pip install 'alseg[onnx]'.") from error
    batch = torch.export.Dim("batch", min=1, max=2**16)
    program = torch.onnx.export(
        model,
        (images,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
    )
    assert program is not None
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {CLASSES: facts})
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def load(values: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(session.run(None, {"images": values.numpy()})[0]))

    return content, load


def _random_images(count: int, size: tuple[int, int]) -> Tensor:
    starts = [noise.stream(0, count, "export", str(number)) for number in range(count)]
    return noise.uniforms(starts, 3 * size[0] * size[1]).view(count, 3, *size).float()


def _check(path: Path, model: nn.Module, load: Loaded, size: tuple[int, int]) -> None:
    """One image and three, other than those it was made with."""
    for count in (1, 3):
        images = _random_images(count, size)
        wanted, found = model(images), load(images)
        if wanted.shape != found.shape or not torch.allclose(wanted, found, atol=TOLERANCE, rtol=TOLERANCE):
            raise AlsegError(f"The exported model gives other logits than the run's: {path} was not written.")
