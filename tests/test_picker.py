"""The simulated picker: wrong pixels, spread over regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from test_human import TINY
from test_run import lines

import alseg
from alseg.errors import AlsegError, UserMistake
from alseg.looking import Looking
from alseg.progress import Quiet
from alseg.store import RunFolder
from alseg_pixelpick.picker import SimulatedPicker, picks

VOID = 9


class Saying(Quiet):
    """Lines that were said."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def say(self, line: str) -> None:
        """Keep a line."""
        self._said.append(line)


def case(seed: int, size: tuple[int, int] = (13, 17)) -> tuple[np.ndarray, ...]:
    """Truth with void, a prediction wrong in a few blobs, some pixels asked already, and keys."""
    random = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(random.integers(0, 3, (4, 5)), 4, 0), 4, 1)[: size[0], : size[1]]
    predicted = np.where(random.random(size) < 0.2, (truth + 1) % 3, truth)
    truth[:2] = VOID
    return truth, predicted, random.random(size) < 0.9, random.random(size)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 40))
def test_picks_are_wrong_pixels_region_by_region(seed: int, n: int):
    truth, predicted, free, keys = case(seed)
    chosen = picks(truth, predicted, free, keys, n, VOID)
    assert len(set(chosen)) == len(chosen) == min(n, int(free.sum()))
    assert all(free[place] for place in chosen)
    wrong = (truth != predicted) & (truth != VOID)
    regions, count = ndimage.label(wrong, np.ones((3, 3)))
    among_wrong = [place for place in chosen if wrong[place]]
    assert len(among_wrong) == min(n, int((wrong & free).sum())), "wrong pixels come first"
    void = [place for place in chosen if truth[place] == VOID]
    assert not void or len(chosen) - len(void) == int((free & (truth != VOID)).sum()), "void comes last"
    # no region has two picks while another that has a free pixel has none
    taken = np.bincount([regions[place] for place in among_wrong], minlength=count + 1)
    available = np.bincount(regions[wrong & free], minlength=count + 1)
    for one in range(1, count + 1):
        for other in range(1, count + 1):
            assert taken[one] <= taken[other] + 1 or taken[other] == available[other]


def test_each_wrong_pixel_of_a_region_is_as_likely():
    truth, predicted = np.zeros((1, 6), int), np.array([[1, 1, 1, 1, 0, 0]])
    counts = np.zeros(6)
    for seed in range(4000):
        keys = np.random.default_rng(seed).random((1, 6))
        ((_, x),) = picks(truth, predicted, np.ones((1, 6), bool), keys, 1, VOID)
        counts[x] += 1
    assert counts[4:].sum() == 0
    # 4 standard deviations of a binomial share of a quarter
    np.testing.assert_allclose(counts[:4], 1000, atol=4 * np.sqrt(4000 * 0.25 * 0.75))


def test_a_run_with_the_simulated_picker(camvid, tmp_path):
    given = {"dataset": "camvid", "dataset.data": str(camvid), "selector": "simulated-picker", **TINY}
    given |= {"first_pixels": 2, "pixels_per_round": 3, "budget": 8}
    first = alseg.run(given, out=tmp_path / "first")
    alseg.run(given, out=tmp_path / "second")
    one, two = (lines(tmp_path / name / "labels.jsonl") for name in ("first", "second"))
    assert one == two, "the same seed picks the same"
    assert len(first.rounds) == 3 and len(one) == 6 * 8
    assert len({(line["image"], line["y"], line["x"]) for line in one}) == len(one)
    # in the last round the model before it was wrong there, unless nothing was
    segmenter = alseg.Segmenter(tmp_path / "first", round=1)
    dataset = alseg.load_plugins().find("dataset", "camvid").build({"data": camvid})
    images = dataset.images("train")
    agree = []
    for line in one:
        if line["round"] == 2:
            i = next(i for i in range(len(images)) if images.key(i) == line["image"])
            agree.append(
                segmenter.segment(images.image(i)).mask[line["y"], line["x"]] == images.mask(i)[line["y"], line["x"]]
            )
    assert sum(agree) == 0


def test_void_is_not_picked_where_it_is_skipped(camvid, tmp_path):
    path = sorted((camvid / "trainannot").iterdir())[0]
    mask = np.full_like(np.asarray(Image.open(path)), 11)
    mask[3, :4] = 1
    Image.fromarray(mask).save(path)
    given = {"dataset": "camvid", "dataset.data": str(camvid), "selector": "simulated-picker", **TINY}
    said: list[str] = []
    run = alseg.run(
        given | {"first_pixels": 2, "pixels_per_round": 3, "budget": 5}, out=tmp_path / "run", progress=Saying(said)
    )
    asked = [line for line in lines(run.folder / "labels.jsonl") if line["image"] == path.stem]
    assert len(asked) == 4 and all(line["class"] is not None for line in asked)
    assert any("Round 1: 1 images have fewer than 3 candidates left" in line for line in said)


def test_the_picker_sees_what_the_model_chose_by(camvid, tmp_path):
    given = {"dataset": "camvid", "dataset.data": str(camvid), "selector": "simulated-picker", **TINY}
    given |= {"query.size": "32x48", "evaluate.size": "48x64", "precision": "float32", "first_pixels": 2, "rounds": 1}
    run = RunFolder(alseg.run(given, out=tmp_path / "run").folder)
    images = alseg.load_plugins().find("dataset", "camvid").build({"data": camvid}).images("train")
    looking = Looking(alseg.load_plugins(), run, 1, images, 0)
    key = images.key(0)
    wanted = alseg.Segmenter(run.path, precision="float32", size=alseg.Size(32, 48), device="cpu")
    seen = wanted.segment(images.image(0), utility=True, key=key)
    assert (looking.predicted(key) == seen.mask).all() and (looking.utility(key) == seen.utility).all()
    other = alseg.Segmenter(run.path, precision="float32", device="cpu").segment(images.image(0), utility=True, key=key)
    assert not (other.utility == seen.utility).all()


def test_what_a_picker_cannot_do_is_said(camvid, tmp_path):
    given = {"dataset": "camvid", "dataset.data": str(camvid), "selector": "simulated-picker", **TINY}
    with pytest.raises(UserMistake, match="--pixels-per-round instead of --pool-pixels-per-round"):
        alseg.run(given | {"pool_pixels_per_round": 10}, out=tmp_path / "run")
    with pytest.raises(AlsegError, match="not in a batch"):
        SimulatedPicker()(None, None, 1)
