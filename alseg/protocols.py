"""The protocols a plugin may implement.

B batch, C classes, H x W an image's own pixels, h x w the model's grid, n pixels asked of an image.
No base class is needed: an object with these methods is the piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from alseg.values import Answers, Classes, PoolBatch, Question, Selection, Taught

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Images(Protocol):
    """The images of one split.

    Optional: `file(i) -> Path`, where image i lies; `stamp(i) -> str`, told without decoding anything, and another as
    soon as what `image` or `mask` give may be: a run whose images all have the stamps they had at an earlier one's
    start need not decode them (None: it cannot be told). `alseg.file_stamp` gives that of files.
    """

    def __len__(self) -> int: ...

    def key(self, i: int) -> str:
        """A stable, unique name of image i."""

    def image(self, i: int) -> np.ndarray:
        """Image i, uint8 [H, W, 3] RGB; raises UserMistake for a file that cannot be read."""

    def mask(self, i: int) -> np.ndarray | None:
        """Class values of image i, integer [H, W] with one void value; None where nobody labelled it."""


@runtime_checkable
class Dataset(Protocol):
    """Named classes and the images of each split.

    Optional, for `alseg datasets check`: `published`, split -> how many images it was published with; `passed_over()`,
    what lies among the files and is not read: what it is -> names.
    """

    classes: Classes
    splits: tuple[str, ...]  # those there are, of "train", "val" and "test"
    recipe: str  # the registered recipe that suits it

    def images(self, split: str) -> Images:
        """The images of a split."""


@runtime_checkable
class Model(Protocol):
    """An `nn.Module` that owns its input normalisation.

    Optional: `decode_at(features, points [B, n, 2]) -> [B, C, n]`, points being (y, x) as fractions of
    the image's height and width, equal in evaluation mode to sampling `decode`'s logits;
    `decode_sampled(features, points)`, equal to it in training, too, but for dropout, with less work;
    `embedding(features) -> [B, D, h, w]`, features to be compared by their Euclidean distance;
    `for_inference(precision)`, a copy that gives the same logits faster, in evaluation mode and without
    gradients; `members`, models of which it is made, each trained on a loss of its own and each one of its
    samples; and `origin`, a mapping of names to text, numbers and truth values that says which weights it
    started from, those of one `sha256` being the same.
    """

    def encode(self, images: Tensor) -> Any:
        """float32 [B, 3, H, W] in [0, 1] -> features."""

    def decode(self, features: Any) -> Tensor:
        """Features -> float32 logits [B, C, h, w], cell centres spread evenly over the image.

        The features stay as they are: dropout passes decode them several times.
        """

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        """All parameters as "encoder" (pretrained) and "decoder"; the recipe holds their rates."""


def members_of(model: Any) -> list[Any]:
    """The models that are trained: a joint model's members, or the model itself."""
    return list(getattr(model, "members", [model]))


class Term(Protocol):
    """An `nn.Module` with a loss of its own, which a model is trained on besides its labels' cross-entropy.

    Its parameters are trained with the model's and stored with them. Optional: `after_step(model, done)`, called
    after each step, `done` being the share of the training that is done, in (0, 1]; and `seen(features) ->
    float32 [B, 1, h, w]`, what it says of each place in evaluation mode, for acquirers (`Prediction.term`).
    """

    def loss(self, model: Model, taught: Taught) -> Tensor:
        """A scalar, which is added to the batch's mean cross-entropy."""


class Acquirer(Protocol):
    """How much would a label here teach?

    Optional: `lowest: float`, the least utility that it can give, for modifiers that need utilities from 0 on.
    """

    def __call__(self, batch: PoolBatch) -> Tensor:
        """Utility, float [B, H, W], higher = ask first; finite everywhere."""


class Selector(Protocol):
    """Which n pixels of each image, then?

    Optional: `attend(round: OpenRound)`, for a selector that lets somebody pick. From the second round on it
    is not called with a batch; the questions have no pixel, and `attend` picks it (`round.pick`).
    """

    def __call__(self, batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        """At most n distinct candidates of each image."""


@runtime_checkable
class Oracle(Protocol):
    """What are these pixels?

    Optional: `attend(round: OpenRound)`, instead of `ask` and `collect` in a run, for an oracle that writes
    each answer to the journal as it comes (`round.answer`); it returns when the round is complete, or when
    nobody is waited for any more. `dismiss(message, done)`: this process will ask nothing more; `done`: nor
    will the run. `is_person`: whether a person stands behind it, whose waiting Ctrl-C ends and not the run.
    """

    sees_truth: bool  # reads stored masks; void can then be kept out of the questions

    def ask(self, questions: Sequence[Question]) -> None:
        """Take questions on; asking again what was asked changes nothing. Returns at once."""

    def collect(self) -> Answers:
        """The answers so far, and whether all are in."""
