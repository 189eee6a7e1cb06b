"""Each check of acquirers and selectors finds what it is for, and says how to mend it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from alseg.ranking import pick
from alseg.testing import ContractError, check_piece, checks_of
from alseg.values import Selection


def entropy(batch):
    return batch.prediction.entropy()


def in_place(batch):
    p = batch.prediction.probabilities()
    p.numpy()[:] = 0.5  # past torch's own count
    return p[:, 0]


def logarithm(batch):
    p = batch.prediction.probabilities()
    return -(p * p.log()).sum(1)


def ratio(batch):
    first, second = batch.prediction.top2()
    return 1 / (first - second)


def fixed_size(batch):
    return entropy(batch).clone().index_fill(2, torch.tensor([1]), 0.0)


def over_the_batch(batch):
    return entropy(batch) / entropy(batch).amax().clamp(min=1e-9)


def elsewhere(batch):
    return torch.zeros(batch.candidates.shape)


def mixed(batch):
    return entropy(batch) + torch.zeros(batch.candidates.shape)


def counting():
    calls = []

    def utility(batch):
        calls.append(batch)
        return batch.prediction.entropy() + len(calls)

    return utility


def with_global_state():
    """Each that is built differs from the one before."""
    with_global_state.built = getattr(with_global_state, "built", 0) + 1
    return lambda batch, number=with_global_state.built: entropy(batch) + number


# check, the acquirer, what is found, what mends it
ACQUIRERS = [
    ("builds", lambda: 3, "the factory gave int", "return a function of the batch"),
    ("builds", lambda: 1 / 0, "its factory raised ZeroDivisionError", "it must build with these options"),
    ("builds", lambda: None, "its factory returns None", "returning the piece"),
    ("result", lambda: lambda batch: 1.0, "it gave float, not a tensor [3, 9, 12]", "return a torch tensor"),
    (
        "result",
        lambda: lambda b: b.prediction.probabilities(),
        "[3, 4, 9, 12]; expected float [B, H, W]",
        "dimension 1",
    ),
    ("result", lambda: lambda b: entropy(b)[:, :-4], "[3, 5, 12]; expected", "the size of the image, batch.size"),
    ("result", lambda: lambda b: entropy(b)[:1], "[1, 9, 12]; expected", "keep dimension 0, the images"),
    ("result", lambda: lambda b: b.prediction.predicted(), "torch.int64 [3, 9, 12]", "end with .float()"),
    ("result", lambda: lambda b: entropy(b).to("meta"), "on meta for a batch on cpu", "device=batch.candidates.device"),
    ("result", lambda: lambda b: entropy(b) / 0, "utility of image 'a' is infinite", "a division by 0"),
    ("result", lambda: lambda b: b.nothing, "AttributeError: 'PoolBatch' object has no attribute 'nothing'", "line "),
    ("inputs", lambda: in_place, "it changed batch.prediction.probabilities()", ".clone()"),
    (
        "extremes",
        lambda: logarithm,
        "utility of image 'b' is NaN where a probability is exactly 0",
        "torch.special.entr",
    ),
    ("extremes", lambda: ratio, "utility of image 'c' is infinite where all classes are alike", "by a difference"),
    ("no-candidates", lambda: fixed_size, "IndexError", ""),
    ("uncertainty", lambda: lambda batch: -entropy(batch), "higher = ask first", "turn its sign"),
    ("same-seed", lambda: lambda b: torch.rand(b.candidates.shape), "two utilities for the same batch", "batch.noise("),
    ("same-again", counting, "another utility when the same batch came again", "keep nothing from call to call"),
    ("same-seed", with_global_state, "two utilities for the same batch", "batch.noise("),
    ("batch-size", lambda: over_the_batch, "where others are in its batch", "never over the batch"),
    ("device", lambda: elsewhere, "a tensor on cpu for a batch on a GPU", "device=batch.candidates.device"),
    ("device", lambda: mixed, "on the CPU while the batch is on a GPU", "zeros_like"),
]


def topk(batch, utility, n):
    return pick(utility, batch.candidates, n)


class Fresh:
    """Never chooses a pixel twice."""

    def __init__(self):
        self.chosen = None

    def __call__(self, batch, utility, n):
        if self.chosen is None or self.chosen.shape != batch.candidates.shape:
            self.chosen = torch.zeros_like(batch.candidates)
        found = pick(utility, batch.candidates & ~self.chosen, n)
        rows, columns = (found.indices >= 0).nonzero(as_tuple=True)
        self.chosen.flatten(1)[rows, found.indices[rows, columns]] = True
        return found


class Attending:
    """Lets somebody pick."""

    def __init__(self, attend):
        self._attend = attend

    def attend(self, round):
        self._attend(round)

    def __call__(self, batch, utility, n):
        raise NotImplementedError


def picks_one(round):
    item = round.unplaced()[0].item
    round.pick(item, 30, 30, "test")


def of_all(batch, utility, n):
    return pick(utility, torch.ones_like(batch.candidates), n)


def unpadded(batch, utility, n):
    found = topk(batch, utility, n)
    return Selection(found.indices.clamp(min=0), found.priority)


def padded_first(batch, utility, n):
    found = topk(batch, utility, n)
    return Selection(found.indices.flip(1), found.priority.flip(1))


def as_int(batch, utility, n):
    found = topk(batch, utility, n)
    return Selection(found.indices.int(), found.priority)


def too_many(batch, utility, n):
    return topk(batch, utility, n + 1)


def twice(batch, utility, n):
    found = topk(batch, utility, n)
    return Selection(found.indices[:, :1].expand(-1, n), found.priority)


def few(batch, utility, n):
    flat = torch.where(batch.candidates, utility, -torch.inf).flatten(1)
    values, indices = flat.topk(n, 1)
    return Selection(torch.where(values.isinf(), -1, indices), values)


def infinite(batch, utility, n):
    found = topk(batch, utility, n)
    return Selection(found.indices, found.priority + torch.inf)


def above_nothing(batch, utility, n):
    return pick(utility, batch.candidates & (utility > 0), n)


def writes(batch, utility, n):
    utility.numpy()[~batch.candidates.numpy()] = -1
    return topk(batch, utility, n)


def by_rank_of_all(batch, utility, n):
    kept = utility >= utility.flatten(1).median(1).values[:, None, None]
    return pick(utility, batch.candidates & kept, n)


def drawn(batch, utility, n):
    return pick(torch.rand(utility.shape), batch.candidates, n)


def over_images(batch, utility, n):
    best = torch.where(batch.candidates, utility, -torch.inf).flatten().sort(descending=True).values
    return pick(utility, batch.candidates & (utility >= best[n]), n)


def on_the_cpu(batch, utility, n):
    values, indices = torch.where(batch.candidates, utility, -torch.inf).flatten(1).topk(n, 1)
    return Selection(torch.where(values.isinf(), torch.full(indices.shape, -1), indices), values)


# check, the selector, what is found, what mends it
SELECTORS = [
    ("builds", lambda: "topk", "the factory gave str, which cannot be called", "batch, utility and n"),
    ("result", lambda: lambda batch, utility, n: [1], "gave list; it must give a Selection", "alseg.Selection(indices"),
    ("result", lambda: of_all, "chose a pixel that is no candidate", "among batch.candidates"),
    ("result", lambda: as_int, "must give int64 indices", "give indices as int64"),
    ("result", lambda: too_many, "gave indices [3, 6]; it must give [3, at most 5]", "n columns or fewer"),
    ("result", lambda: twice, "chose one pixel twice", "without replacement"),
    (
        "result",
        lambda: lambda b, u, n: pick(u, b.candidates & False, n),
        "it chose [0, 0, 0] pixels",
        "min(n, candidates)",
    ),
    ("attend", lambda: Attending(picks_one), "it did 1 of 8 questions and returned", "is_person = True"),
    ("attend", lambda: Attending(lambda round: round.nothing), "AttributeError", "nothing"),
    ("padding", lambda: unpadded, "chose a pixel that is no candidate", "give -1 for what is missing"),
    ("padding", lambda: padded_first, "a row has -1 before a pixel: [-1, -1, -1, -1, ", "-1 after them"),
    ("numbers", lambda: few, "selected index k out of range", ""),
    ("priority", lambda: infinite, "a chosen pixel has the priority [inf]", "only padding may be infinite"),
    (
        "utilities",
        lambda: above_nothing,
        "it chose nothing with utilities torch.float32 from 0 to 0",
        "one another only",
    ),
    ("inputs", lambda: writes, "it changed utility, which others read too", "utility.clone()"),
    ("candidates-only", lambda: by_rank_of_all, "pixels that are no candidates", "torch.where(batch.candidates"),
    ("same-seed", lambda: drawn, "it made two choices of the same batch", "batch.noise("),
    ("same-again", lambda: Fresh(), "other pixels when the same batch came again", "keep nothing from call to call"),
    ("batch-size", lambda: over_images, "where others are in its batch", "never over the batch"),
    ("device", lambda: on_the_cpu, "on the CPU while the batch is on a GPU", "device=batch.candidates.device"),
]
TABLE = [("acquirer", *row) for row in ACQUIRERS] + [("selector", *row) for row in SELECTORS]


def fails(kind: str, check: str, factory: object, *words: str, **more: object) -> None:
    """The check is among those that fail; its message has the words, and the whole names piece and check."""
    with pytest.raises(ContractError) as caught:
        check_piece(kind, factory, name="mine", **more)
    error = caught.value
    found = {failure.check: failure.message for failure in error.failures}
    assert check in found, str(error)
    for word in words:
        assert word in found[check], found[check]
    assert found[check] in str(error) and str(error).startswith(f"{kind} 'mine'") and check in str(error)
    assert isinstance(error, AssertionError) and error.__cause__ is not None


@pytest.mark.parametrize(("kind", "check", "factory", "found", "mend"), TABLE)
def test_a_broken_one_is_found_and_told_how_to_mend_it(kind, check, factory, found, mend):
    fails(kind, check, factory, found, mend)


@pytest.mark.parametrize("kind", ["acquirer", "selector"])
def test_each_check_has_a_broken_piece(kind):
    assert {row[1] for row in TABLE if row[0] == kind} == set(checks_of(kind))


def test_one_that_needs_more_classes_says_so_by_its_own_error():
    def third(batch):
        return batch.prediction.probabilities().topk(3, 1).values[:, 2]

    fails("acquirer", "result", lambda: third, "selected index k out of range", classes=2)
    check_piece("acquirer", lambda: third)


def test_an_image_of_several_candidates_is_chosen_from_whatever_is_beside_it():
    def first_only(batch, utility, n):
        found = topk(batch, utility, n)
        return replace(found, indices=torch.where(torch.arange(len(batch.keys))[:, None] > 0, -1, found.indices))

    fails("selector", "batch-size", lambda: first_only, "of image 'b' alone and [] where others are in its batch")
