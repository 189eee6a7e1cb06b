"""One batch through a model: a plain pass in evaluation mode, and samples that differ by chance."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alseg import noise
from alseg.engine.calls import decoded, embedded, encoded, seen, told
from alseg.engine.device import draw_from, lower_precision, seeded
from alseg.engine.layers import quickened, ways_of
from alseg.engine.terms import PLACE as TERMS
from alseg.engine.terms import term_called
from alseg.errors import UserMistake
from alseg.protocols import Model, members_of

DROPOUT = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class Draw(NamedTuple):
    """What each image's dropout depends on besides the number of the pass and of the layer's call."""

    seed: int
    round: int
    keys: tuple[str, ...]


class Passes:
    """Logits float32 [B, C, h, w] of a batch of images [B, 3, H, W], which are scaled when first needed."""

    def __init__(
        self, model: Model, images: Callable[[], Tensor], device: torch.device, precision: torch.dtype, draw: Draw
    ) -> None:
        self._model, self._images, self._device, self._precision, self._draw = model, images, device, precision, draw
        # kept from the first sample on: features of evaluation mode, and where they would differ from sample
        # to sample, the scaled images
        self._features: Any = None
        self._kept: Tensor | None = None
        self._evaluated: Any = None  # features, kept for those who ask for more than logits
        self._count = 0  # images, when they are scaled

    @torch.no_grad()
    def plain(self) -> Tensor:
        """The model's logits in evaluation mode."""
        with lower_precision(self._device, self._precision):
            features = self._encoded()
            return decoded(self._model, features, self._count)

    @torch.no_grad()
    def embedding(self) -> Tensor:
        """The model's embedding, float32 [B, D, h, w], in evaluation mode; UserMistake where it has none."""
        if not hasattr(self._model, "embedding"):
            name = told(self._model).name
            raise UserMistake(f"{name} has no embedding: choose one that has, or pieces that need none.")
        with lower_precision(self._device, self._precision):
            self._evaluated = self._encoded()
            return embedded(self._model, self._evaluated, self._count)

    @torch.no_grad()
    def _of(self, member: Model) -> Tensor:
        if self._kept is None:
            self._kept = self._images()
        with lower_precision(self._device, self._precision):
            return decoded(member, encoded(member, self._kept), len(self._kept))

    @torch.no_grad()
    def term(self, name: str) -> Tensor:
        """What a training term says, float32 [B, 1, h, w]; UserMistake where the model was trained without it."""
        found = term_called(self._model, name)
        if not hasattr(found, "seen"):
            raise UserMistake(f"The model has no training term {name!r} to be asked: give -o terms={name}.")
        with lower_precision(self._device, self._precision):
            self._evaluated = self._encoded()
            return seen(found, self._evaluated, self._count)

    def _encoded(self) -> Any:
        kept = self._evaluated if self._features is None else self._features
        if kept is not None:
            return kept
        images = self._images()
        self._count = len(images)
        return encoded(self._model, images)

    def samples(self, count: int, first: int = 0) -> Iterator[Tensor]:
        """`count` logits from number `first` on, one at a time: a joint model's members', or by dropout.

        With dropout its layers are at work and all else is in evaluation mode; the encoder runs once if no
        dropout is at work in it (Gal and Ghahramani, ICML 2016). What is dropped of an image does not depend
        on the others of its batch. Raises UserMistake where the model has no dropout, or fewer members.
        """
        assert isinstance(self._model, nn.Module)
        members = members_of(self._model)
        if members != [self._model]:
            if first + count > len(members):
                raise UserMistake(
                    f"The model has {len(members)} members and {first + count} samples are asked for: give it more, "
                    f"or let the acquirer ask for {len(members)}, such as by -o acquirer.passes={len(members)}."
                )
            return (self._of(member) for member in members[first : first + count])
        parts = self._model.named_modules()  # terms give no logits
        active = [m for name, m in parts if isinstance(m, DROPOUT) and m.p > 0 and not name.startswith(f"{TERMS}.")]
        if not active:
            raise UserMistake(
                f"{told(self._model).name} has no dropout with a rate above 0, so that its passes would all be the "
                "same: choose a model with dropout, or an acquirer that needs a single pass."
            )
        return (self._dropout_pass(active, number) for number in range(first, first + count))

    @torch.no_grad()
    def _dropout_pass(self, active: Sequence[nn.Module], number: int) -> Tensor:
        model, (seed, round, keys) = self._model, self._draw
        assert isinstance(model, nn.Module)
        with lower_precision(self._device, self._precision):
            if self._features is None:
                images = self._images()
                with only_training(model, ()), _calls(active) as calls:
                    self._features, self._count = encoded(self._model, images), len(images)
                self._kept = images if calls else None

            def starts(call: int) -> list[int]:
                return [noise.stream(seed, round, f"dropout pass {number}, call {call}", key) for key in keys]

            with (
                only_training(model, active),
                quickened(ways_of(model)),
                seeded(self._device, seed, round, f"dropout pass {number}", keys[0]),
                _by_image(active, starts),
            ):
                features = self._features if self._kept is None else encoded(self._model, self._kept)
                return decoded(self._model, features, self._count)


@contextlib.contextmanager
def only_training(model: nn.Module, modules: Sequence[nn.Module]) -> Iterator[None]:
    """`modules` in training mode and the rest of the model in evaluation mode; all as before after it."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextlib.contextmanager
def _by_image(modules: Sequence[Any], starts: Callable[[int], list[int]]) -> Iterator[None]:
    """Dropout `modules` draw for each image from where `starts` says, by the number of their call inside."""
    before = [(module, vars(module).get("forward"), module.forward) for module in modules]
    calls = itertools.count()

    def dropped(drop: Callable[[Tensor], Tensor], in_place: bool, input: Tensor) -> Tensor:
        streams = starts(next(calls))
        if len(input) % len(streams):  # not the images' dimension
            return drop(input)
        result = input if in_place else torch.empty_like(input)
        # drawn in the order of memory, which for the same image may be another one in another batch
        order = torch.channels_last if input.ndim == 4 else torch.contiguous_format
        parts = zip(streams, result.chunk(len(streams)), input.chunk(len(streams)), strict=True)
        for start, kept, part in parts:
            draw_from(start, input.device)
            kept.copy_(drop(part.contiguous(memory_format=order)))
        return result

    try:
        for module, _, drop in before:
            module.forward = partial(dropped, drop, module.inplace)
        yield
    finally:
        for module, own, _ in before:
            if own is None:
                del module.forward
            else:
                module.forward = own


@contextlib.contextmanager
def _calls(modules: Sequence[nn.Module]) -> Iterator[list[nn.Module]]:
    """The calls of `modules` inside, in a list that grows."""
    calls: list[nn.Module] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: calls.append(module)) for module in modules]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
