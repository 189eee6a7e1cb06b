"""An acquirer or selector that writes into what it is handed is named, by what torch counts."""

from __future__ import annotations

import pytest
import torch
from conftest import SMALL, one_sentence

from alseg.engine.checks import checked_acquirer, checked_selector, compared
from alseg.errors import AlsegError
from alseg.ranking import pick
from alseg.testing import pool_batch
from alseg.values import Selection

BATCH_SIZE = (2, 6, 7)


def batch():
    return pool_batch(torch.full((2, 3, 6, 7), 1 / 3))


def fine(batch):
    return batch.prediction.entropy()


def with_candidates(batch):
    batch.candidates[0, 0, 0] = False
    return fine(batch)


def with_probabilities(batch):
    return batch.prediction.probabilities().clamp_(min=1e-6)[:, 0]


def with_probabilities_before(batch):
    batch.prediction.top2()
    return with_probabilities(batch)


def with_second(batch):
    return batch.prediction.top2()[1].mul_(2)


def with_predicted(batch):
    batch.prediction.predicted()[0] = 0
    return fine(batch)


def with_a_view(batch):
    batch.prediction.top2()[0].flatten(1)[:, 0] = 1
    return fine(batch)


CHANGES = [
    (with_candidates, "batch.candidates"),
    (with_probabilities, "batch.prediction.probabilities()"),
    (with_probabilities_before, "batch.prediction.probabilities()"),
    (with_second, "batch.prediction.top2()[1]"),
    (with_predicted, "batch.prediction.predicted()"),
    (with_a_view, "batch.prediction.top2()[0]"),
]


@pytest.mark.parametrize(("broken", "what"), CHANGES)
@pytest.mark.parametrize("kind", ["acquirer", "selector"])
def test_what_is_changed_in_place_is_named(kind, broken, what):
    if kind == "acquirer":
        call = checked_acquirer(broken, "The acquirer 'x' of y")
    else:

        def select(batch, utility, n):
            broken(batch)
            return pick(utility, batch.candidates, n)

        checked = checked_selector(select, "The selector 'x' of y")

        def call(batch):
            return checked(batch, torch.zeros(BATCH_SIZE), 2)

    with pytest.raises(AlsegError) as failure:
        call(batch())
    assert str(failure.value) == (
        f"The {kind} 'x' of y changed {what} in place, which others read too: it must work on a copy, {what}.clone()."
    )


def with_data(batch):
    batch.prediction.probabilities().data.clamp_(min=0.4)
    return fine(batch)


def with_an_array(batch):
    batch.candidates.numpy()[0, 0, 0] = False
    return fine(batch)


def with_an_array_of_a_map(batch):
    batch.prediction.predicted().numpy()[0] = 1
    return fine(batch)


UNCOUNTED = [
    (with_data, "batch.prediction.probabilities()"),
    (with_an_array, "batch.candidates"),
    (with_an_array_of_a_map, "batch.prediction.predicted()"),
]


@pytest.mark.parametrize(("broken", "what"), UNCOUNTED)
def test_what_torch_does_not_count_is_seen_where_values_are_compared(broken, what):
    checked_acquirer(broken, "A")(batch())  # by its counts alone it is not
    said = f"A changed {what} in place, which others read too: it must work on a copy, {what}.clone()."
    with pytest.raises(AlsegError) as failure:
        compared(checked_acquirer(broken, "A"), "A")(batch())
    assert str(failure.value) == said

    def select(batch, utility, n):
        broken(batch)
        return pick(utility, batch.candidates, n)

    with pytest.raises(AlsegError) as failure:
        compared(checked_selector(select, "A"), "A")(batch(), torch.zeros(BATCH_SIZE), 2)
    assert str(failure.value) == said


def test_comparing_takes_nan_and_channels_last_as_they_are():
    p = torch.full((2, 3, 6, 7), 1 / 3).contiguous(memory_format=torch.channels_last)
    select = compared(lambda batch, utility, n: pick(utility.nan_to_num(), batch.candidates, n), "S")
    assert select(pool_batch(p), torch.full(BATCH_SIZE, torch.nan), 2).indices.shape == (2, 2)


def test_a_selector_that_changes_utilities_is_named():
    def select(batch, utility, n):
        utility[~batch.candidates] = -torch.inf
        return pick(utility, batch.candidates, n)

    with pytest.raises(AlsegError, match=r"^S changed utility in place.*utility\.clone\(\)\.$"):
        checked_selector(select, "S")(batch(), torch.zeros(BATCH_SIZE), 2)


def test_reading_and_copies_are_no_changes():
    def acquirer(batch):
        p = batch.prediction.probabilities().clone().clamp_(min=1e-6)
        return p.sum(1) + batch.prediction.top2()[0] + batch.prediction.predicted() + batch.candidates

    given = batch()
    utility = checked_acquirer(acquirer, "A")(given)
    utility += 1  # whose it is may do so
    checked_selector(lambda batch, utility, n: pick(utility, batch.candidates, n), "S")(given, utility, 3)


def test_tensors_of_inference_mode_are_not_counted():
    with torch.inference_mode():
        checked_acquirer(fine, "A")(batch())


@pytest.mark.parametrize(
    ("acquirer", "words"),
    [
        (lambda batch: fine(batch).to("meta"), "A gave a tensor on meta; it must stay on cpu"),
        (lambda batch: fine(batch).to_sparse(), "A gave a sparse tensor; it must give a dense one"),
        (lambda batch: fine(batch) * torch.nan, "A gave NaN for the image a;"),
        (lambda batch: fine(batch)[:, 1:], "A gave torch.float32 [2, 5, 7]; it must give a float tensor [2, 6, 7]"),
        (lambda batch: fine(batch).long(), "A gave torch.int64 [2, 6, 7]; it must give a float tensor [2, 6, 7]"),
    ],
)
def test_what_an_acquirer_gives_is_refused(acquirer, words):
    with pytest.raises(AlsegError) as failure:
        checked_acquirer(acquirer, "A")(batch())
    assert words in str(failure.value)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        (lambda s: Selection(s.indices.to("meta"), s.priority), "S gave a tensor on meta; it must stay on cpu: "),
        (lambda s: Selection(s.indices, s.priority.to("meta")), "S gave a tensor on meta; it must stay on cpu: "),
        (lambda s: Selection(s.indices, s.priority * torch.nan), "S gave a priority that is NaN"),
    ],
)
def test_what_a_selector_gives_is_refused(selection, words):
    def select(batch, utility, n):
        return selection(pick(utility, batch.candidates, n))

    with pytest.raises(AlsegError) as failure:
        checked_selector(select, "S")(batch(), torch.zeros(BATCH_SIZE), 2)
    assert words in str(failure.value)


PLUGIN = """\
from alseg import hookimpl, pick


def masks_in_place():
    def select(batch, utility, n):
        WRITES
        return pick(utility, batch.candidates, n)

    return select


@hookimpl
def register_selectors(register):
    register("in-place", masks_in_place)
"""


@pytest.mark.parametrize(
    ("writes", "what"),
    [
        ("utility[~batch.candidates] = -1e9", "utility"),
        ("batch.candidates.cpu().numpy()[0, :3] = False", "batch.candidates"),
    ],
)
def test_a_run_refuses_it_before_anything_is_trained(cli, camvid, tmp_path, writes, what):
    file = tmp_path / "inplace.py"
    file.write_text(PLUGIN.replace("WRITES", writes))
    words = ["--plugin", file, "run", "--dataset", "camvid", "--data", camvid, *SMALL, "--selector", "in-place"]
    outcome = cli(*words, "--rounds", 2, "--out", tmp_path / "run")
    one_sentence(outcome, "The selector 'in-place' of ", f"changed {what} in place", code=1)
    assert not (tmp_path / "run").exists()
