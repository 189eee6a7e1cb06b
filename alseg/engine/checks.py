"""What an acquirer and a selector give is checked, and what they raise or change in place names them.

Torch counts what is written into a tensor (`_version`), so that nothing is copied to see a change. A map that a
prediction keeps is fresh when it is computed: its count is 0 until somebody writes into it. What is not counted is
found by comparing values, once a run (`compared`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from alseg.engine.calls import called, writes
from alseg.errors import AlsegError
from alseg.protocols import Acquirer, Selector
from alseg.values import PoolBatch, Selection

T = TypeVar("T")
# what is wrong with a choice -> what to do about it
MENDS = {
    "Selection": "give alseg.Selection(indices, priority), or what alseg.pick(values, batch.candidates, n) gives",
    "at most": "give one row for each image with n columns or fewer",
    "int64": "give indices as int64 and a priority for each of them",
    "outside": "an index is y * W + x, and -1 stands for none",
    "no candidate": "choose among batch.candidates alone and give -1 for what is missing, as alseg.pick does",
    "twice": "choose without replacement, as alseg.pick does",
    "NaN": "give what the pixel was chosen by, such as its utility or its draw",
    "stay on": "make tensors with device=batch.candidates.device",
}


def checked_acquirer(acquirer: Acquirer, name: str) -> Acquirer:
    """An acquirer whose result is float [B, H, W] on the batch's device, finite everywhere."""

    def utility(batch: PoolBatch) -> Tensor:
        before = _counts(batch)
        result = _called(name, batch, lambda: acquirer(batch))
        _refuse_changes(name, before, batch)
        wanted, device = [len(batch.keys), *batch.size], batch.candidates.device
        if not isinstance(result, Tensor):
            raise AlsegError(f"{name} gave {type(result).__name__}; it must give a float tensor {wanted}.")
        if result.layout != torch.strided:
            raise AlsegError(f"{name} gave a sparse tensor; it must give a dense one, such as by .to_dense().")
        if list(result.shape) != wanted or not result.is_floating_point():
            raise AlsegError(f"{name} gave {result.dtype} {list(result.shape)}; it must give a float tensor {wanted}.")
        if result.device != device:
            raise AlsegError(f"{name} gave a tensor on {result.device}; it must stay on {device}.")
        unfit = ~result.isfinite().flatten(1).all(1)
        if bool(unfit.any()):
            refuse_spoilt(batch)
            key = batch.keys[int(unfit.nonzero()[0])]
            what = "NaN" if bool(result.isnan().any()) else "an infinite utility"
            raise AlsegError(
                f"{name} gave {what} for the image {key}; utilities must be finite numbers: look for a division "
                "by 0 or a logarithm of 0."
            )
        return result

    return utility


def checked_selector(selector: Selector, name: str) -> Selector:
    """A selector that gives at most n distinct candidates of each image, with a priority each."""

    def select(batch: PoolBatch, utility: Tensor, n: int) -> Selection:
        before = _counts(batch, utility)
        result = _called(name, batch, lambda: selector(batch, utility, n))
        _refuse_changes(name, before, batch, utility)
        if not isinstance(result, Selection) or not isinstance(result.indices, Tensor):
            raise AlsegError(
                f"{name} gave {type(result).__name__}; it must give a Selection of tensors, as alseg.pick does."
            )
        problem = _problem(batch, result, n)
        if problem:
            raise AlsegError(f"{name} {problem}: {mend_of(problem)}.")
        return result

    return select


def mend_of(problem: str) -> str:
    """What to do about a choice that is refused."""
    return next(mend for words, mend in MENDS.items() if words in problem)


def compared(piece: Callable[..., T], name: str) -> Callable[..., T]:
    """An acquirer or selector before and after whose call the values that it is handed are compared.

    For a single image: it finds what torch does not count, such as writing into `.data` or by NumPy. Copies are the
    host's, whose memory is larger.
    """

    def call(batch: PoolBatch, *given: Any) -> T:
        batch.prediction.top2()  # so that all maps are there
        before = {handed: _bits(tensor).to("cpu", copy=True) for handed, tensor in _handed(batch, *given[:1]).items()}
        result = piece(batch, *given)
        for handed, tensor in _handed(batch, *given[:1]).items():
            if handed in before and not torch.equal(before[handed], _bits(tensor).cpu()):
                raise _changed(name, handed)
        return result

    return call


def _bits(tensor: Tensor) -> Tensor:
    """A tensor whose NaN are equal to themselves."""
    whole = {4: torch.int32, 8: torch.int64}.get(tensor.element_size()) if tensor.is_floating_point() else None
    return tensor.detach() if whole is None else tensor.detach().view(whole)


def _problem(batch: PoolBatch, selection: Selection, n: int) -> str | None:
    indices, priority = selection.indices, selection.priority
    count = batch.size[0] * batch.size[1]
    if indices.dim() != 2 or len(indices) != len(batch.keys) or indices.shape[1] > n:
        return f"gave indices {list(indices.shape)}; it must give [{len(batch.keys)}, at most {n}]"
    if indices.numel() == 0:
        return None
    for part in (indices, priority):
        if isinstance(part, Tensor) and part.device != batch.candidates.device:
            return f"gave a tensor on {part.device}; it must stay on {batch.candidates.device}"
    if indices.dtype != torch.int64 or not isinstance(priority, Tensor) or priority.shape != indices.shape:
        return "must give int64 indices and as many priorities"
    if int(indices.max()) >= count or int(indices.min()) < -1:
        return f"gave an index outside an image of {count} pixels"
    chosen = indices >= 0
    free = batch.candidates.flatten(1).gather(1, indices.clamp(min=0))
    if bool((chosen & ~free).any()):
        return "chose a pixel that is no candidate"
    ordered = indices.sort(1).values
    if bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any()):
        return "chose one pixel twice"
    if bool((chosen & priority.isnan()).any()):
        return "gave a priority that is NaN, and priorities are compared with one another"
    return None


def _handed(batch: PoolBatch, utility: Tensor | None = None) -> dict[str, Tensor]:
    """What a piece is handed and must leave as it is, by name."""
    given = {"batch.candidates": batch.candidates, **({} if utility is None else {"utility": utility})}
    kept: Mapping[str, Tensor] = getattr(batch.prediction, "kept", {})
    return given | {f"batch.prediction.{name}": tensor for name, tensor in kept.items()}


def _counts(batch: PoolBatch, utility: Tensor | None = None) -> dict[str, int]:
    return {name: writes(tensor) for name, tensor in _handed(batch, utility).items()}


def _refuse_changes(name: str, before: Mapping[str, int], batch: PoolBatch, utility: Tensor | None = None) -> None:
    for handed, count in _counts(batch, utility).items():
        if count != before.get(handed, 0):
            raise _changed(name, handed)


def _changed(name: str, handed: str) -> AlsegError:
    return AlsegError(
        f"{name} changed {handed} in place, which others read too: it must work on a copy, {handed}.clone()."
    )


def refuse_spoilt(batch: PoolBatch) -> None:
    """AlsegError that names the model where its probabilities are NaN; nothing where that cannot be told."""
    refuse = getattr(batch.prediction, "refuse_spoilt", None)
    if refuse is not None:
        refuse()


def _called(name: str, batch: PoolBatch, call: Callable[[], T]) -> T:
    """What a piece gives; where it raises on what a model gave that is no number, the model is named."""
    try:
        return called(name, call)
    except AlsegError as error:
        if isinstance(error.__cause__, Exception) and not isinstance(error.__cause__, AlsegError):
            refuse_spoilt(batch)
        raise
