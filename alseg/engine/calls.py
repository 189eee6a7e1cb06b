"""Calls of a model's and its terms' own code: what they give is checked by its shape alone, what they raise names them.

No check waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from alseg import calling
from alseg.calling import described
from alseg.engine.device import out_of_memory
from alseg.engine.team import is_of_team
from alseg.engine.terms import PLACE as TERMS
from alseg.errors import AlsegError
from alseg.protocols import Model, Term, members_of
from alseg.values import Taught

T = TypeVar("T")
PLACE = "alseg_piece"  # the attribute by which a module knows which piece it is
PARTS = ("encoder", "decoder")


class Told(NamedTuple):
    """Which piece a module is, and how many classes it tells apart, where that is known."""

    name: str
    classes: int | None


def tell(module: Any, name: str, classes: int | None = None) -> None:
    """Let a model and its members, or a term, be called by the piece's kind, name and distribution in messages."""
    for each in (module, *(member for member in members_of(module) if member is not module)):
        setattr(each, PLACE, Told(name, classes))


def told(module: Any) -> Told:
    """What `tell` said of a module; by its class where nothing was said."""
    kind = "model" if hasattr(module, "decode") else "term"
    return getattr(module, PLACE, None) or Told(f"The {kind} {type(module).__name__}", None)


def called(name: str, call: Callable[[], T], where: str = "") -> T:
    """What `call` gives; AlsegError that names the piece where it raises.

    Memory that ran out and another process that cannot be reached, as in a backward pass, are no piece's errors.
    """
    return calling.called(name, call, where, lambda error: out_of_memory(error) or is_of_team(error))


def writes(tensor: Tensor) -> int:
    """How often it was written into, as torch counts that; tensors of inference mode are not counted."""
    return 0 if tensor.is_inference() else tensor._version


def encoded(model: Model, images: Tensor) -> Any:
    """The features of images [B, 3, H, W], which stay as they are."""
    name, before = told(model).name, writes(images)
    features = called(name, lambda: model.encode(images), "encode")
    if writes(images) != before:
        raise AlsegError(
            f"{name} changed its images in place in encode, which others read too: it must work on a copy, such as "
            "images - mean instead of images.sub_(mean)."
        )
    return features


def decoded(model: Model, features: Any, count: int) -> Tensor:
    """float32 logits [B, C, h, w] of the features of so many images."""
    (name, classes), logits = told(model), called(told(model).name, lambda: model.decode(features), "decode")
    fits = isinstance(logits, Tensor) and logits.dim() == 4 and logits.is_floating_point() and logits.numel() > 0
    if not fits or len(logits) != count or classes not in (None, logits.shape[1]):
        wanted = "C" if classes is None else classes
        raise AlsegError(
            f"{name} gave {described(logits)} in decode; it must give float logits [{count}, {wanted}, h, w], a map "
            "for each class."
        )
    _refuse_elsewhere(model, name, logits, "decode")
    return logits


def decoded_at(model: Any, features: Any, points: Tensor, by: str = "decode_at") -> Tensor:
    """float32 logits [B, C, n] at points [B, n, 2], by the model's method for it."""
    name, classes = told(model)
    logits = called(name, lambda: getattr(model, by)(features, points), by)
    fits = isinstance(logits, Tensor) and logits.dim() == 3 and logits.is_floating_point()
    if not fits or (len(logits), logits.shape[2]) != points.shape[:2] or classes not in (None, logits.shape[1]):
        count, n = points.shape[:2]
        wanted = "C" if classes is None else classes
        raise AlsegError(
            f"{name} gave {described(logits)} in {by} for {n} points of {count} images; it must give float logits "
            f"[{count}, {wanted}, {n}]."
        )
    _refuse_elsewhere(model, name, logits, by)
    return logits


def _refuse_elsewhere(model: Any, name: str, logits: Tensor, where: str) -> None:
    """AlsegError where logits are not float32 (rounded ones tie utilities), or lie elsewhere than its parameters."""
    if logits.dtype != torch.float32:
        raise AlsegError(
            f"{name} gave {logits.dtype} logits in {where}; they must be float32, whatever the precision around it: "
            "end it with .float()."
        )
    parameter = next(model.parameters(), None)
    if parameter is not None and logits.device != parameter.device:
        raise AlsegError(
            f"{name} gave logits on {logits.device} in {where}; they must stay on {parameter.device}, where its "
            "parameters are."
        )


def embedded(model: Any, features: Any, count: int) -> Tensor:
    """float32 [B, D, h, w], what the model compares places by."""
    return _maps(told(model).name, lambda: model.embedding(features), "embedding", count, "D")


def seen(term: Any, features: Any, count: int) -> Tensor:
    """float32 [B, 1, h, w], what a term says of each place."""
    return _maps(told(term).name, lambda: term.seen(features), "seen", count, 1)


def _maps(name: str, call: Callable[[], Any], where: str, count: int, channels: int | str) -> Tensor:
    maps = called(name, call, where)
    fits = isinstance(maps, Tensor) and maps.dim() == 4 and maps.is_floating_point() and len(maps) == count
    if not fits or (isinstance(channels, int) and maps.shape[1] != channels):
        raise AlsegError(
            f"{name} gave {described(maps)} in {where}; it must give a float tensor [{count}, {channels}, h, w]."
        )
    return maps.float()


def quick_copy(model: Any, precision: torch.dtype) -> Any:
    """The model's own fast copy, called as the model is."""
    name, classes = told(model)
    copy = called(name, lambda: model.for_inference(precision), "for_inference")
    if not isinstance(copy, nn.Module) or not isinstance(copy, Model):
        raise AlsegError(f"{name} gave {described(copy)} in for_inference; it must give a model.")
    tell(copy, name, classes)
    return copy


def term_loss(term: Term, model: Model, taught: Taught) -> Tensor:
    """A term's loss, a float scalar on the model's device."""
    name, device = told(term).name, taught.losses.device
    loss = called(name, lambda: term.loss(model, taught), "loss")
    if not isinstance(loss, Tensor) or loss.dim() or not loss.is_floating_point():
        raise AlsegError(f"{name} gave {described(loss)} as its loss; it must give a float scalar, such as by .mean().")
    if loss.device != device:
        raise AlsegError(f"{name} gave a loss on {loss.device}; it must stay on {device}.")
    return loss


def term_parameters(term: Any) -> list[nn.Parameter]:
    """What a term has to learn."""
    found = called(told(term).name, lambda: list(term.parameters()), "parameters")
    strange = next((each for each in found if not isinstance(each, nn.Parameter)), None)
    if strange is not None:
        raise AlsegError(f"{told(term).name} gave {described(strange)} in parameters; each must be an nn.Parameter.")
    return found


def groups_of(model: Model) -> dict[str, list[nn.Parameter]]:
    """The model's parameter groups, of which the encoder's may be missing or empty.

    AlsegError where one of its trainable parameters is in no group, or in two; its terms' are in none.
    """
    name = told(model).name
    given: Any = called(name, model.parameter_groups, "parameter_groups")
    if not isinstance(given, Mapping):
        raise AlsegError(f"{name} gave {described(given)} in parameter_groups; it must give a dict of lists.")
    groups = called(name, lambda: {part: list(parameters) for part, parameters in given.items()}, "parameter_groups")
    problem = _problem(groups, model)
    if problem:
        raise AlsegError(f"{name} {problem}.")
    return groups


def origin_of(model: Any) -> dict[str, Any]:
    """Which weights a model started from, as run.toml holds it, paths as text; AlsegError where it cannot hold it."""
    name = told(model).name
    given = called(name, lambda: getattr(model, "origin", None), "origin")
    if given is None:
        return {}
    form = "it must be a mapping of names to text, numbers and truth values"
    if not isinstance(given, Mapping):
        raise AlsegError(f"{name} has {described(given)} as its origin; {form}.")
    for key, value in given.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | Path):
            raise AlsegError(f"{name} has {described(value)} under {key!r} in its origin; {form}.")
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}


def _problem(groups: Mapping[Any, Sequence[Any]], model: Model) -> str | None:
    assert isinstance(model, nn.Module)
    if "decoder" not in groups or not groups.keys() <= set(PARTS):
        names = ", ".join(map(repr, groups)) or "nothing"
        return f'has {names} as its parameter_groups; they must be "encoder" (what is pretrained) and "decoder"'
    if not groups["decoder"]:
        return 'has no parameter in the group "decoder"; what is not pretrained must be there'
    own, listed = {id(parameter) for parameter in model.parameters()}, set[int]()
    for part, parameters in groups.items():
        for place, parameter in enumerate(parameters):
            if not isinstance(parameter, nn.Parameter):
                return f"gave {described(parameter)} in the group {part!r}; each must be an nn.Parameter"
            if id(parameter) not in own:
                shape = list(parameter.shape)
                return (
                    f"gave a parameter {shape} in the group {part!r}, number {place}, that is not its own: register "
                    "what it is of as a module"
                )
            if id(parameter) in listed:
                return f"gave a parameter {list(parameter.shape)} twice in its groups, number {place} of {part!r}"
            listed.add(id(parameter))
    left_out = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in listed and not name.startswith(f"{TERMS}.")
    ]
    if left_out:
        others = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        return (
            f"leaves the parameter {left_out[0]!r}{others} out of its parameter_groups, which would never be "
            'trained: put all in "encoder" or "decoder", but for those with requires_grad=False'
        )
    return None
