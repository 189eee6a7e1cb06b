"""What a model thinks of images, on the images' own grid, computed when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from alseg.engine.calls import told
from alseg.engine.passes import Draw, Passes
from alseg.errors import AlsegError
from alseg.grid import resize, resize_images
from alseg.options import Longer, Size, fitted
from alseg.protocols import Model

SizeChoice = Size | Longer | str | None


def no_members(k: int) -> Iterator[Tensor]:
    """Of logits that come from no model."""
    raise AlsegError("There is no model here that could make dropout passes.")


def no_embedding() -> Tensor:
    """Of logits that come from no model."""
    raise AlsegError("There is no model here that could give an embedding.")


def no_term(name: str) -> Tensor:
    """Of logits that come from no model."""
    raise AlsegError(f"There is no model here that could have the training term {name!r}.")


class ModelPrediction:
    """`Prediction` from logits [B, C, h, w], which are computed when first asked for.

    They are upsampled to `size`, the images' own, before the softmax. `members` gives k logits that
    differ by chance, one at a time; `embedding` and `term` are the model's, at each call anew.
    `kept` are the maps that are computed once and handed out, each by the call that gives it. `name` is the model's,
    for messages.
    """

    def __init__(
        self,
        logits: Callable[[], Tensor],
        size: tuple[int, int],
        members: Callable[[int], Iterator[Tensor]] = no_members,
        embedding: Callable[[], Tensor] = no_embedding,
        term: Callable[[str], Tensor] = no_term,
        name: str = "The model",
    ) -> None:
        self._logits, self._size, self._members = logits, size, members
        self._embedding, self._term, self._name = embedding, term, name
        self.kept: dict[str, Tensor] = {}

    @cached_property
    def _probabilities(self) -> Tensor:
        self.kept["probabilities()"] = resize(self._logits(), self._size).softmax(1)
        return self.kept["probabilities()"]

    @cached_property
    def _top2(self) -> tuple[Tensor, Tensor, Tensor]:
        first, predicted = self._probabilities.max(1)
        chances, place = self._probabilities.data, predicted.unsqueeze(1)
        # the highest is taken out and put back, which `data` does not count as a change; a map without it would be
        # another one as large; deterministically a GPU sorts all places to put it back, which takes more
        if torch.are_deterministic_algorithms_enabled():
            second = chances.scatter(1, place, -1.0).amax(1).clamp(min=0)
        else:
            second = chances.scatter_(1, place, -1.0).amax(1).clamp(min=0)
            chances.scatter_(1, place, first.unsqueeze(1))
        self.kept |= {"top2()[0]": first, "top2()[1]": second, "predicted()": predicted}
        return first, second, predicted

    def probabilities(self) -> Tensor:
        """float32 [B, C, H, W]."""
        return self._probabilities

    def top2(self) -> tuple[Tensor, Tensor]:
        """Highest and second highest probability, [B, H, W] each; the second is 0 where C is 1."""
        return self._top2[0], self._top2[1]

    def predicted(self) -> Tensor:
        """int64 [B, H, W]."""
        return self._top2[2]

    def entropy(self) -> Tensor:
        """Nats, [B, H, W]."""
        return torch.special.entr(self._probabilities).sum(1)

    def is_spoilt(self) -> Tensor:
        """Whether a probability is NaN, bool [] on the device."""
        return self._top2[0].amax().isnan()

    def refuse_spoilt(self) -> None:
        """AlsegError that names the model where a probability is NaN; this waits for the device."""
        if bool(self.is_spoilt()):
            raise spoilt(self._name)

    def samples(self, k: int) -> Iterator[Tensor]:
        """k times float32 [B, C, H, W], never more than one at a time."""
        return (resize(logits, self._size).softmax(1) for logits in self._members(k))

    def embedding(self) -> Tensor:
        """float32 [B, D, h, w]."""
        return self._embedding()

    def term(self, name: str) -> Tensor:
        """float32 [B, H, W]."""
        return resize(self._term(name), self._size)[:, 0]


def spoilt(name: str) -> AlsegError:
    """What is said of a model whose probabilities are NaN."""
    return AlsegError(
        f"{name} gave logits that are not finite, of which no probability comes: look for a division by 0 or log in "
        "it, and whether its training diverged, which a lower train.learning_rate mends."
    )


def predict(
    model: Model,
    images: Sequence[np.ndarray],
    size: SizeChoice,
    device: torch.device,
    precision: torch.dtype,
    draw: Draw | None = None,
) -> ModelPrediction:
    """Predictions of images uint8 [H, W, 3] of one size, seen by the model at `size`.

    `draw` keys the dropout of `samples`, by the images' numbers in the batch where it is left out.
    """
    assert isinstance(model, nn.Module) and not model.training
    height, width = images[0].shape[:2]

    def scaled() -> Tensor:
        batch = torch.from_numpy(np.stack(images)).to(device, non_blocking=True).permute(0, 3, 1, 2)
        return resize_images(batch, fitted(size, (height, width))).contiguous(memory_format=torch.channels_last)

    draw = draw or Draw(seed=0, round=0, keys=tuple(map(str, range(len(images)))))
    passes, name = Passes(model, scaled, device, precision, draw), told(model).name
    return ModelPrediction(passes.plain, (height, width), passes.samples, passes.embedding, passes.term, name)
