"""What a model must do so that it can be trained, stored and loaded."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load
from torch import nn

from alseg.calling import described
from alseg.engine.calls import origin_of, told
from alseg.engine.device import seeded
from alseg.engine.weights import stored
from alseg.errors import AlsegError
from alseg.protocols import Model, members_of
from alseg.testing.contract import Broken, Inapplicable, require
from alseg.testing.models import AT_POINTS, CONTRACT, CPU, OfModel

PARTS = ("encoder", "decoder")


@CONTRACT.check("parameter-groups")
def _parameter_groups(of: OfModel) -> None:
    """parameter_groups names all trainable parameters once, as "encoder" and "decoder"."""
    model = of.new()
    groups = {name: list(parameters) for name, parameters in model.parameter_groups().items()}
    strange = [name for name in groups if name not in PARTS]
    require(
        not strange and "decoder" in groups,
        f"parameter_groups has the names {', '.join(groups) or 'none'}; expected encoder and decoder",
        'put what is pretrained under "encoder" and the rest under "decoder"',
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [id(parameter) for parameters in groups.values() for parameter in parameters]
    twice = [names.get(key, "?") for key in set(listed) if listed.count(key) > 1]
    require(not twice, f"parameter_groups names {', '.join(twice[:3])} twice", "put each parameter in one group")
    missing = [name for key, name in names.items() if key not in listed and model.get_parameter(name).requires_grad]
    require(
        not missing,
        f"parameter_groups lacks {', '.join(missing[:3])}, which would never be trained",
        'give all others as "decoder": [p for p in self.parameters() if id(p) not in encoder]',
    )
    foreign = [key for key in listed if key not in names]
    require(not foreign, "parameter_groups has parameters that are not the model's", "register them as its modules")


@CONTRACT.check("origin")
def _origin(of: OfModel) -> None:
    """Where it says which weights it started from, that is a mapping of names to text, numbers and truth values."""
    model = of.new()
    if getattr(model, "origin", None) is None:
        raise Inapplicable("it has no origin")
    try:
        origin_of(model)
    except AlsegError as error:
        words = str(error).rstrip(".").removeprefix(told(model).name).strip()
        raise Broken(f"it {words}", 'give what tells weights apart, such as {"sha256": "..."}') from error


@CONTRACT.check("gradient")
def _gradient(of: OfModel) -> None:
    """In training mode a loss at points reaches every trainable parameter of every member, however it decodes."""
    model = of.new().train()
    for member in members_of(model):
        require(
            isinstance(member, Model), f"its member {described(member)} is no Model", "make members of whole models"
        )
    ways = [way for way in ("decode", *AT_POINTS) if all(hasattr(member, way) for member in members_of(model))]
    points = torch.tensor([[0.1, 0.2], [0.5, 0.5], [0.8, 0.3]]).expand(2, -1, -1)
    for way in ways:
        model.zero_grad(set_to_none=True)
        with seeded(CPU, 0, 0, "training"):
            losses = [_loss(member, of.images(), points, way) for member in members_of(model)]
        require(
            all(loss.requires_grad for loss in losses),
            f"no gradient comes out of {way}",
            "leave out torch.no_grad, detach and .data on the way, or freeze by requires_grad_(False) less",
        )
        torch.stack(losses).sum().backward()
        unreached = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        require(
            not unreached,
            f"no gradient reaches {', '.join(unreached[:3])} by {way}",
            "use the layer, or leave it out, or freeze it with requires_grad_(False)",
        )
        spoilt = [n for n, p in model.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
        require(not spoilt, f"the gradient of {', '.join(spoilt[:3])} is not finite", "look for sqrt or log at 0")


def _loss(member: Any, images: torch.Tensor, points: torch.Tensor, way: str) -> torch.Tensor:
    features = member.encode(images)
    logits = getattr(member, way)(features, *([points] if way in AT_POINTS else []))
    return logits.float().log_softmax(1)[:, 0].mean()


@CONTRACT.check("same-seed")
@torch.no_grad()
def _same_seed(of: OfModel) -> None:
    """Two that are built from the same seed have the same weights: a resumed run depends on it."""
    one, other = of.new(seed=3).state_dict(), of.new(seed=3).state_dict()
    differ = [name for name in one if name not in other or not torch.equal(one[name], other[name])]
    require(
        not differ,
        f"built twice from the same seed, {', '.join(differ[:3])} differ",
        "draw initial weights with torch's own functions and no generator of your own",
    )


@CONTRACT.check("state-dict")
@torch.no_grad()
def _state_dict(of: OfModel) -> None:
    """Its weights, stored as safetensors and loaded into another, give the same logits."""
    model, images = of.new(seed=1), of.images()
    model.train()
    with seeded(CPU, 0, 0, "training"):
        model.decode(model.encode(images))  # which moves running statistics
    model.eval()
    fresh: nn.Module = of.new(seed=2)
    try:
        fresh.load_state_dict(load(stored(model, {})))
    except RuntimeError as error:
        raise Broken(
            f"a fresh one does not take its weights: {str(error).splitlines()[-1].strip()}",
            "let state_dict have the same names and shapes however it was trained",
        ) from error
    fresh.eval()
    wanted, found = (each.decode(each.encode(images)) for each in (model, fresh))  # type: ignore[operator]
    require(
        torch.equal(wanted, found),
        f"loaded into another its logits differ by {float((wanted - found).abs().max()):.3g}",
        "register all that it learns as parameters or buffers, none of them with persistent=False",
    )


@CONTRACT.check("trainable")
def _trainable(of: OfModel) -> None:
    """What parameter_groups gives can be optimised: something of it is trainable."""
    trainable = [p for parameters in of.new().parameter_groups().values() for p in parameters if p.requires_grad]
    require(trainable, "nothing of it is trainable", "leave the decoder's parameters with requires_grad")


@CONTRACT.check("samples")
@torch.no_grad()
def _samples(of: OfModel) -> None:
    """Where it has dropout, passes differ from one another and follow from the seed."""
    from alseg.engine.passes import DROPOUT, Draw, Passes

    model = of.model()
    if members_of(model) == [model] and not any(isinstance(m, DROPOUT) and m.p > 0 for m in model.modules()):
        raise Inapplicable("it has no dropout and no members")
    found = []
    for _ in range(2):
        passes = Passes(model, of.images, CPU, torch.float32, Draw(0, 1, ("a", "b")))
        found.append(list(passes.samples(2)))
    require(
        not torch.equal(found[0][0], found[0][1]),
        "two passes with dropout at work, or two members, give the same logits",
        "use nn.Dropout modules on the way, or build members anew",
    )
    require(
        all(torch.equal(one, other) for one, other in zip(*found, strict=True)),
        "passes with the same seed differ",
        "draw with torch's own generator",
    )
