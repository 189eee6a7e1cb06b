"""What a model must do: the subject, and the checks of what it gives in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alseg import noise
from alseg.calling import described
from alseg.engine.device import mode, seeded
from alseg.engine.weights import weights_of
from alseg.errors import PROTOCOLS
from alseg.grid import sample
from alseg.options import Between
from alseg.plugins import Registry
from alseg.protocols import Model
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Contract, Inapplicable, Report, require
from alseg.testing.subjects import Subject, What, built, subject_of

CPU = torch.device("cpu")
TOLERANCE = 1e-3  # of logits, relative to the largest: other batch sizes have other kernels
AT_POINTS = ("decode_at", "decode_sampled")  # optional, from features to logits at points
CORNERS = ("upper left", "upper right", "lower left", "lower right")
METHODS = ("encode", "decode", "parameter_groups")


@dataclass
class OfModel:
    """A model with its number of classes and the size of the images that it is checked on."""

    subject: Subject
    classes: int
    size: tuple[int, int]
    _made: list[Any] = field(default_factory=list)

    def new(self, classes: int | None = None, seed: int = 0) -> Any:
        """A fresh one, from a seed."""
        with seeded(CPU, seed, 0, "initial weights"):
            return built(self.subject, classes=classes or self.classes)

    def model(self) -> Any:
        """One in evaluation mode that the checks share; none of them changes it."""
        if not self._made:
            self._made.append(self.new())
        return self._made[0].eval()

    def images(self, size: tuple[int, int] | None = None, count: int = 2) -> Tensor:
        """float32 [count, 3, H, W] in [0, 1]; each follows from its number."""
        size = size or self.size
        starts = [noise.stream(0, 0, "images", str(i)) for i in range(count)]
        return noise.uniforms(starts, 3 * size[0] * size[1]).float().view(count, 3, *size)


CONTRACT: Contract[OfModel] = Contract("model")


@explains_wrong_calls
def check_model(
    model: What,
    options: Mapping[str, Any] | None = None,
    *,
    classes: Annotated[int, Between(2)] = 4,
    size: Annotated[tuple[int, int], Between(1)] = (64, 64),
    name: str | None = None,
    around: What | None = None,
    registry: Registry | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a model by the factory that is registered, or by its name; raises ContractError.

    classes: how many it is to tell apart. size: height and width of the images, for a model that takes no small ones.
    Give it options by which it is small and needs no network.
    """
    import alseg.testing.model_training  # noqa: F401  the rest of the checks

    subject = subject_of("model", model, options, name=name, around=around, registry=registry)
    return CONTRACT.judge(OfModel(subject, classes, size), subject.name, skip)


def close(one: Tensor, other: Tensor) -> bool:
    """Whether logits are the same but for rounding."""
    scale = max(1.0, float(other.abs().max()))
    return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * scale)


def tensors_in(features: Any, where: str = "features") -> Iterator[tuple[str, Tensor]]:
    """All tensors in features, by where they are."""
    if isinstance(features, Tensor):
        yield where, features
    elif isinstance(features, Mapping):
        for key, part in features.items():
            yield from tensors_in(part, f"{where}[{key!r}]")
    elif isinstance(features, list | tuple):
        for i, part in enumerate(features):
            yield from tensors_in(part, f"{where}[{i}]")
    elif is_dataclass(features):
        for entry in fields(features):
            yield from tensors_in(getattr(features, entry.name), f"{where}.{entry.name}")


@CONTRACT.check("builds", basic=True)
def _builds(of: OfModel) -> None:
    """The factory gives an nn.Module with encode, decode and parameter_groups, all of which can be stored."""
    made = of.new()
    require(
        isinstance(made, nn.Module), f"the factory gave {described(made)}, no nn.Module", "derive it from nn.Module"
    )
    lacks = [method for method in METHODS if not callable(getattr(made, method, None))]
    require(isinstance(made, Model), f"it has no {', '.join(lacks)}", f"see Model in {PROTOCOLS}")
    weights_of(made)


@CONTRACT.check("shapes", basic=True)
@torch.no_grad()
def _shapes(of: OfModel) -> None:
    """encode and decode give finite float32 logits [B, C, h, w] of images [B, 3, H, W]."""
    _require_logits(of, of.images())


def _require_logits(of: OfModel, images: Tensor) -> None:
    logits, classes = of.model().decode(of.model().encode(images)), of.classes
    size = "x".join(map(str, images.shape[2:]))
    require(
        isinstance(logits, Tensor) and logits.dim() == 4 and logits.shape[:2] == (len(images), classes),
        f"decode gave {described(logits)} for {len(images)} images of {size}; expected float32 "
        f"[{len(images)}, {classes}, h, w]",
        "give one map of logits for each class, not of probabilities or labels",
    )
    require(
        logits.device == images.device,
        f"decode gave a tensor on {logits.device} for images on {images.device}",
        "make tensors with device=features.device, and register what the model keeps as parameters or buffers",
    )
    require(logits.dtype == torch.float32, f"decode gave {logits.dtype}; expected torch.float32", "end with .float()")
    require(bool(logits.isfinite().all()), f"a logit is not finite for images of {size}", "look for log or division")
    sums = logits.sum(1)
    require(
        classes == 1 or bool((logits < 0).any()) or not torch.allclose(sums, torch.ones_like(sums), atol=1e-4),
        "decode gave probabilities, which add up to 1 at each place",
        "leave the softmax out: alseg interpolates logits and takes it itself",
    )


@CONTRACT.check("places")
@torch.no_grad()
def _places(of: OfModel) -> None:
    """Logits lie as the image does: what changes in a corner changes them most in that corner."""
    images, (height, width) = of.images(count=1), of.size
    changed = images.clone()
    changed[..., : height // 2, width // 2 :].mul_(-1).add_(1)
    before, after = (of.model().decode(of.model().encode(each)) for each in (images, changed))
    if min(before.shape[-2:]) < 2:
        raise Inapplicable(f"of {height}x{width} its logits are {before.shape[2]}x{before.shape[3]}: give size=")
    by_corner = F.interpolate((after - before).abs().sum(1, keepdim=True), (height, width), mode="bilinear")
    moved = F.adaptive_avg_pool2d(by_corner, 2)[0, 0]
    require(
        bool(moved[0, 1] >= moved.max()),
        f"the image changed in its upper right, and the logits most in their {CORNERS[int(moved.argmax())]}",
        "give logits [B, C, h, w] with rows before columns, the first row on top",
    )


@CONTRACT.check("sizes")
@torch.no_grad()
def _sizes(of: OfModel) -> None:
    """Images of any size are served, odd ones and single ones too."""
    height, width = of.size
    for size in ((height + 1, width + 33), (height + 17, width - 1), (height - 1, width + 2)):
        _require_logits(of, of.images(size, count=1))


@CONTRACT.check("classes")
@torch.no_grad()
def _classes(of: OfModel) -> None:
    """One class and many are served: the factory's `classes` is the number of logits."""
    for classes in (1, 2, 7):
        model = of.new(classes).eval()
        found = model.decode(model.encode(of.images(count=1))).shape[1]
        require(found == classes, f"with classes={classes} it gave {found} logits a pixel", "size the last layer by it")


@CONTRACT.check("precision")
@torch.no_grad()
def _precision(of: OfModel) -> None:
    """Logits are float32 and finite under autocast to bfloat16 too."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = of.model().decode(of.model().encode(of.images()))
    require(
        logits.dtype == torch.float32,
        f"under autocast decode gave {logits.dtype}: rounded logits would tie utilities",
        "compute the last layer with torch.autocast(x.device.type, enabled=False) around it, on x.float()",
    )
    require(bool(logits.isfinite().all()), "under autocast a logit is not finite", "keep what overflows in float32")


@CONTRACT.check("inputs")
@torch.no_grad()
def _inputs(of: OfModel) -> None:
    """Images and features stay as they are: dropout passes decode the same features several times."""
    model, images = of.model(), of.images()
    before = images.clone()
    features = model.encode(images)
    require(torch.equal(before, images), "encode changed its images", "do without sub_ and div_ on them")
    kept = [(where, tensor.clone()) for where, tensor in tensors_in(features)]
    require(kept, f"encode gave {described(features)} with no tensor in it", "give tensors, or a list or dict of them")
    points = torch.full((len(images), 3, 2), 0.5)
    calls: dict[str, Callable[[], Any]] = {"decode": lambda: model.decode(features)}
    calls |= {way: partial(getattr(model, way), features, points) for way in AT_POINTS if hasattr(model, way)}
    if hasattr(model, "embedding"):
        calls["embedding"] = lambda: model.embedding(features)
    for name, call in calls.items():
        call()
        for (where, was), (_, now) in zip(kept, tensors_in(features), strict=True):
            require(
                torch.equal(was, now),
                f"{name} changed {where}, which is decoded again",
                "do without in-place layers on features, such as ReLU(inplace=True) or +=",
            )


@CONTRACT.check("evaluation")
@torch.no_grad()
def _evaluation(of: OfModel) -> None:
    """In evaluation mode the same images give the same logits, whatever is in the batch beside them."""
    model, images = of.model(), of.images(count=3)
    together = model.decode(model.encode(images))
    require(
        torch.equal(together, model.decode(model.encode(images))),
        "in evaluation mode it gave two answers for the same images",
        "let dropout and the like follow self.training",
    )
    for i in range(3):
        alone = model.decode(model.encode(images[i : i + 1]))
        require(
            close(alone[0], together[i]),
            f"logits of an image differ by {float((alone[0] - together[i]).abs().max()):.3g} where others are in its "
            "batch",
            "normalise by running statistics, or within each image",
        )


@CONTRACT.check("decode-at")
@torch.no_grad()
def _decode_at(of: OfModel) -> None:
    """decode_at gives what sampling decode's map at the points gives, in evaluation mode."""
    _require_sampled(of, "decode_at")


@CONTRACT.check("decode-sampled")
@torch.no_grad()
def _decode_sampled(of: OfModel) -> None:
    """decode_sampled gives what sampling decode's map at the points gives, in evaluation mode."""
    _require_sampled(of, "decode_sampled")


def _require_sampled(of: OfModel, way: str) -> None:
    model = of.model()
    if not hasattr(model, way):
        raise Inapplicable(f"it has no {way}")
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.0, 1.0]])
    drawn = noise.uniforms([noise.stream(0, 0, "points")], 12).float().view(6, 2)
    points = torch.cat([corners, drawn]).expand(2, -1, -1)
    for size in (of.size, (of.size[0] + 1, of.size[1] + 33)):
        features = model.encode(of.images(size))
        wanted, found = sample(model.decode(features), points), getattr(model, way)(features, points)
        require(
            found.shape == wanted.shape and found.dtype == torch.float32,
            f"{way} gave {described(found)}; expected {described(wanted)}",
            "give float32 logits [B, C, n]",
        )
        require(
            close(found, wanted),
            f"{way} differs from decode's map at the points by {float((found - wanted).abs().max()):.3g}",
            "points are (y, x) as fractions of the image with half-pixel centres: alseg.grid.sample(maps, points)",
        )


@CONTRACT.check("embedding")
@torch.no_grad()
def _embedding(of: OfModel) -> None:
    """embedding gives a finite floating map [B, D, h, w]."""
    model = of.model()
    if not hasattr(model, "embedding"):
        raise Inapplicable("it has no embedding")
    found = model.embedding(model.encode(of.images()))
    require(
        isinstance(found, Tensor) and found.dim() == 4 and len(found) == 2 and found.is_floating_point(),
        f"embedding gave {described(found)}; expected float [2, D, h, w]",
        "give a map of what the classifier sees",
    )
    require(bool(found.isfinite().all()), "embedding has a number that is not finite", "look for a division by 0")


@CONTRACT.check("inference")
@torch.no_grad()
def _inference(of: OfModel) -> None:
    """for_inference gives a copy with the same logits, in evaluation mode; the model stays as it is."""
    made = of.new()
    if not hasattr(made, "for_inference"):
        raise Inapplicable("it has no for_inference")
    images = of.images()
    with mode(made, False):
        wanted = made.decode(made.encode(images))
        copy = made.for_inference(torch.float32)
        require(not copy.training, "for_inference gave a copy in training mode", "end with .eval()")
        found = copy.decode(copy.encode(images))
        again = made.decode(made.encode(images))
    require(
        close(found, wanted),
        f"for_inference's logits differ by {float((found - wanted).abs().max()):.3g}",
        "fold norms exactly, with their eps and running statistics, and keep every layer",
    )
    require(torch.equal(wanted, again), "for_inference changed the model itself", "copy.deepcopy it before you fold")
