"""Modifiers: how a name is put together and taken apart, power noise, and shares by class."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, one_sentence
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_acquirers import noise_of
from test_balanced import batch_of, chosen, fair, selector
from test_piece_names import entry_point, two_margins  # noqa: F401
from test_plugins import RUN

from alseg.errors import UserMistake
from alseg.plugins import Registry, load_plugins
from alseg.values import PixelLabels, PoolBatch

few = settings(max_examples=25, deadline=None, database=None, derandomize=True)

MODIFIERS = """\
from alseg import hookimpl

def twice(acquirer, factor: float = 2.0):
    \"\"\"More of it.\"\"\"
    return lambda batch: factor * acquirer(batch)

def sums(new_acquirer, terms: int = 3):
    parts = [new_acquirer() for _ in range(terms)]
    assert len({id(part) for part in parts}) == terms
    return lambda batch: sum(part(batch) for part in parts)

def constant(value: float = 1.0):
    import torch
    return lambda batch: torch.full(batch.candidates.shape, value)

def other(factor: int = 1):
    return constant(float(factor))

@hookimpl
def register_acquirers(register):
    for piece in (twice, sums, constant, other):
        register(piece.__name__, piece)
"""


def acquirer(registry: Registry, name: str, **options: object):
    piece = registry.find("acquirer", name)
    return piece.build(piece.resolve(options))


def batch_with(candidates: np.ndarray, seed: int = 0, round: int = 1) -> PoolBatch:
    keys, size = tuple(f"image {i}" for i in range(len(candidates))), candidates.shape[1:]
    draw = noise_of(keys, size, seed, round)
    return PoolBatch(keys, size, SimpleNamespace(), torch.from_numpy(candidates), PixelLabels(), round, draw)


def test_a_third_partys_modifier_wraps_what_its_name_says(plugin):
    registry = load_plugins([path := plugin(MODIFIERS)])
    batch = batch_with(np.ones((1, 2, 3), bool))
    for name, options, value in (
        ("twice:constant", {}, 2),
        ("twice:constant", {"factor": 3, "value": 5}, 15),
        ("sums:constant", {}, 3),
        ("sums:twice:constant", {"terms": 2, "value": 7}, 28),
        ("twice:sums:constant", {"value": 7}, 42),
        (f"{path}:twice:{path}:constant", {}, 2),
    ):
        assert (acquirer(registry, name, **options)(batch) == value).all(), name
    assert list(registry.find("acquirer", "sums:twice:constant").options()) == ["terms", "factor", "value"]
    assert registry.find("acquirer", "twice:margin").says() == (
        "More of it. Minus the gap between the two likeliest classes."
    )


ORACLES = """\
from alseg import hookimpl

def counted(oracle, images, offset: int = 0):
    return (oracle, len(images) + offset)

def plain(seed, classes):
    return (seed, classes)

@hookimpl
def register_oracles(register):
    register("counted", counted)
    register("plain", plain)
"""


def test_the_core_gives_each_part_what_it_takes(plugin):
    piece = load_plugins([plugin(ORACLES)]).find("oracle", "counted:plain")
    made = piece.build(piece.resolve({"offset": 2}), images=[1, 2, 3], classes="abc", seed=7)
    assert made == ((7, "abc"), 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("twice", "'twice' modifies another: write twice:NAME"),
        ("twice:", "'twice' modifies another"),
        ("twice:sums", "'sums' modifies another"),
        ("twic:constant", "no acquirer 'twic:constant'; did you mean twice:"),
        ("twice:constnt", "no acquirer 'constnt'; did you mean constant"),
        ("constant:twice", "'constant' modifies no other"),
        ("twice:twice:constant", "'twice:twice:constant'.* two parts called 'twice' have an option 'factor'"),
        ("alseg:twice:constant", "There is no acquirer 'alseg:twice:constant'"),
        (":constant", "There is no acquirer"),
    ],
)
def test_a_name_that_does_not_fit_together_is_explained(plugin, name, words):
    registry = load_plugins([plugin(MODIFIERS)])
    with pytest.raises(UserMistake, match=words):
        registry.find("acquirer", name).options()


def test_an_option_that_several_parts_have_is_called_by_its_part(plugin):
    registry = load_plugins([path := plugin(MODIFIERS)])
    batch = batch_with(np.ones((1, 2, 3), bool))
    assert list(registry.find("acquirer", "twice:other").options()) == ["twice.factor", "other.factor"]
    for name, options, value in (
        ("twice:other", {}, 2),
        ("twice:other", {"other.factor": 5}, 10),
        ("twice:other", {"twice.factor": 3, "other.factor": 5}, 15),
        ("sums:twice:other", {"terms": 2, "twice.factor": 3, "other.factor": 5}, 30),
        ("twice:sums:other", {"twice.factor": 3, "terms": 2}, 6),
        (f"{path}:twice:{path}:other", {"twice.factor": 3}, 3),
        ("my_piece:twice:my_piece:other", {"twice.factor": 3}, 3),
        ("twice:constant", {"twice.factor": 3, "constant.value": 5}, 15),  # though neither needs its part
        ("constant", {"constant.value": 5}, 5),
    ):
        assert (acquirer(registry, name, **options)(batch) == value).all(), name
    with pytest.raises(UserMistake, match=r"no option 'factor'; write acquirer.twice.factor or acquirer.other.factor"):
        registry.find("acquirer", "twice:other").resolve({"factor": 3})


def test_such_options_are_stored_and_read_again(cli, tmp_path, plugin):
    path, table = plugin(MODIFIERS), tmp_path / "settings.toml"
    words = ["--plugin", path, *RUN, "--acquirer", "twice:other"]
    assert cli(*words, "-o", "acquirer.other.factor=3", "--out", tmp_path / "run").code == 0
    table.write_text('[acquirer]\nname = "twice:other"\ntwice.factor = 4\n')
    assert cli(*words, "--config", table, "--out", tmp_path / "from_file").code == 0
    for run, changed in (("run", {"other.factor": 3, "twice.factor": 2.0}), ("from_file", {"twice.factor": 4.0})):
        acquirer = tomllib.loads((tmp_path / run / "run.toml").read_text())["acquirer"]
        assert {"name": "twice:other", "other.factor": 1} | changed == acquirer
        assert cli("--plugin", path, "resume", tmp_path / run, "--rounds", 3).code == 0


def test_an_option_is_shown_by_the_name_that_works(cli, plugin):
    words = ("--plugin", plugin(MODIFIERS), "plugins", "show", "twice:other")
    shown = cli(*words).out
    assert "acquirer.twice.factor" in shown and "acquirer.other.factor" in shown
    (row,) = json.loads(cli(*words, "--json").out)
    assert [option["name"] for option in row["options"]] == ["twice.factor", "other.factor"]


def test_an_option_by_its_part_goes_over_one_without(cli, tmp_path, plugin):
    path, table = plugin(MODIFIERS), tmp_path / "settings.toml"
    table.write_text('[acquirer]\nname = "twice:constant"\nfactor = 4\n')
    words = ["--plugin", path, *RUN, "--config", table, "-o", "acquirer.twice.factor=3"]
    assert cli(*words, "--out", tmp_path / "run").code == 0
    assert tomllib.loads((tmp_path / "run" / "run.toml").read_text())["acquirer"]["factor"] == 3
    one_sentence(cli(*words, "-o", "acquirer.factor=4"), "acquirer.twice.factor and acquirer.factor are one option")


def test_a_distributions_piece_can_be_wrapped(two_margins):  # noqa: F811
    registry = load_plugins(entry_points=two_margins)
    assert registry.find("acquirer", "power:margin").inner.plugin.distribution == "alseg"
    for name in ("power:theirs:margin", "alseg:power:theirs:margin"):
        piece = registry.find("acquirer", name)
        assert piece.inner is not None
        assert piece.inner.plugin.distribution == "theirs"
    assert registry.find("acquirer", "theirs:margin").inner is None


def test_modifiers_are_listed_as_such(cli):
    rows = {(row["kind"], row["name"]): row for row in json.loads(cli("plugins", "--json").out)}
    assert rows["acquirer", "power"]["modifier"] is rows["selector", "stratified"]["modifier"] is True
    assert rows["acquirer", "margin"]["modifier"] is False
    assert "power:NAME" in cli("plugins", "--kind", "acquirer").out


WORDS = ("--first-pixels", 3, "--pixels-per-round", 3, "--acquirer", "power:entropy", "-o", "acquirer.beta=4")


def test_a_run_with_modifiers_is_stored_and_resumed(cli, camvid, tmp_path):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL, *WORDS, "--selector", "stratified:topk"]
    assert cli(*words, "--rounds", 3, "--out", tmp_path / "whole").code == 0
    assert cli(*words, "--rounds", 2, "--out", tmp_path / "run").code == 0
    settings = tomllib.loads((tmp_path / "run/run.toml").read_text())
    assert settings["acquirer"] == {"name": "power:entropy", "beta": 4.0, "form": "power"}
    assert settings["selector"] == {"name": "stratified:topk", "balanced": 0.66}
    assert cli("resume", tmp_path / "run", "--rounds", 3).code == 0
    asked = [(tmp_path / run / "rounds/02/questions.jsonl").read_text() for run in ("whole", "run")]
    assert asked[0] == asked[1]
    assert cli("predict", tmp_path / "run", camvid / "val", "--utility", "--out", tmp_path / "masks").code == 0


def test_what_does_not_fit_is_said_before_a_run(refused, camvid):
    words = ["run", "--dataset", "camvid", "--data", camvid, *SMALL]
    refused([*words, "--acquirer", "power:margn"], "'margn'", "did you mean margin")
    refused([*words, "--acquirer", "power:margin", "-o", "acquirer.beta=0"], "acquirer.beta takes a number from", "'0'")
    refused([*words, "--acquirer", "power:margin", "-o", "acquirer.bta=1"], "'power:margin'", "did you mean beta")
    refused([*words, "--selector", "stratified:human"], "stratified:", "pick")


@pytest.mark.parametrize("form", ["power", "softmax", "rank"])
@few
@given(seed=st.integers(0, 9999), beta=st.sampled_from([0.3, 1.0, 8.0]), low=st.sampled_from([-1.0, 0.0, 0.5]))
def test_noise_is_added_as_the_paper_says(registry: Registry, form: str, seed: int, beta: float, low: float):
    from alseg_pixelpick.power import Power

    random = np.random.default_rng(seed)
    utility, candidates = low + random.random((2, 4, 5)).round(1), random.random((2, 4, 5)) < 0.7
    batch = batch_with(candidates, seed)
    found = Power(lambda batch: torch.from_numpy(utility), beta, form)(batch).numpy()
    gumbel = stats.gumbel_r.ppf(batch.noise("power noise").numpy(), scale=1 / beta)
    for i in range(2):
        free = candidates[i]
        if form == "power":
            lowest = min([0.0, *utility[i][free]])
            wanted = np.log(np.maximum(utility[i] - lowest, 1e-300))
        elif form == "softmax":
            wanted = utility[i]
        else:
            order = np.lexsort((batch.noise("ties").numpy()[i][free], -utility[i][free]))
            wanted = np.zeros((4, 5))
            ranks = np.empty(free.sum())
            ranks[order] = np.arange(1, free.sum() + 1)
            wanted[free] = -np.log(ranks)
        np.testing.assert_allclose(found[i][free], (wanted + gumbel[i])[free], rtol=1e-9, atol=1e-9)
    assert np.isfinite(found).all()


def test_a_power_is_of_what_is_above_the_least_that_an_acquirer_says_it_gives(registry: Registry):
    from alseg_pixelpick.power import logarithms

    utility = torch.tensor([[[-0.5, -0.25]], [[-0.9, -0.1]]])
    for name, lowest in (("margin", -1.0), ("stated", -2.0), ("stated", 0.0), ("unstated", None)):
        if name == "margin":
            assert acquirer(registry, "power:margin").acquirer.lowest == lowest
        batch = batch_with(np.ones((2, 1, 2), bool))
        found = logarithms(utility.double(), batch, lowest).exp().numpy()
        least = utility.amin((1, 2), keepdim=True).numpy() if lowest is None else lowest
        np.testing.assert_allclose(found, np.maximum(utility.numpy() - least, 0), atol=1e-7)


def test_over_a_pool_margins_of_unlike_images_are_drawn_by_one_rule(registry: Registry):
    """An image that is certain in places lends no weight to the rest of it."""
    top = torch.zeros(2000, 1, 2)
    top[0::2, 0] = torch.tensor([1.0, 0.6])  # gaps of an image with a certain pixel, and of one without
    top[1::2, 0] = torch.tensor([0.6, 0.2])
    prediction = SimpleNamespace(top2=lambda: (top, torch.zeros_like(top)))
    batch = replace(batch_with(np.ones((2000, 1, 2), bool)), prediction=prediction)
    found = acquirer(registry, "power:margin")(batch)
    pairs = torch.stack([found[0::2, 0, 1], found[1::2, 0, 0], found[1::2, 0, 1]])  # gaps 0.6, 0.6, 0.2
    counts = pairs.argmax(0).bincount(minlength=3)
    assert stats.chisquare(counts.numpy(), 1000 * np.array([0.4, 0.4, 0.8]) / 1.6).pvalue > 1e-3


def test_the_highest_is_drawn_by_the_power_of_its_utility(registry: Registry):
    from alseg_pixelpick.power import Power

    utility = torch.tensor([0.0, 0.1, 0.2, 0.4]).expand(4000, 1, 4)
    batch = batch_with(np.ones((4000, 1, 4), bool))
    for shift in (0.0, -0.4):  # margin's utilities are negative
        counts = Power(lambda batch, s=shift: utility + s, beta=2.0)(batch).flatten(1).argmax(1).bincount(minlength=4)
        assert counts[0] == 0
        assert stats.chisquare(counts[1:].numpy(), 4000 * np.array([1, 4, 16]) / 21).pvalue > 0.001


def test_noise_leaves_an_image_alone_where_others_are_beside_it(registry: Registry):
    from alseg_pixelpick.power import Power

    utility = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 4, 5)))
    together = Power(lambda batch: utility)(batch_with(np.ones((3, 4, 5), bool)))
    assert torch.equal(together[:1], Power(lambda batch: utility[:1])(batch_with(np.ones((1, 4, 5), bool))))


@pytest.mark.parametrize("inner", ["topk", "uniform", "topk-then-uniform", "uniform-then-topk", "balanced-random"])
@few
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 15)),
    classes=st.integers(1, 5),
    n=st.integers(1, 20),
    free=st.sampled_from([0.0, 0.2, 1.0]),
    share=st.sampled_from([0.0, 0.5, 0.66, 1.0]),
    seed=st.integers(0, 9999),
)
def test_classes_get_their_share(
    registry: Registry,
    inner: str,
    shape: tuple[int, int, int],
    classes: int,
    n: int,
    free: float,
    share: float,
    seed: int,
):
    random = np.random.default_rng(seed)
    predicted, candidates = random.integers(0, classes, shape), random.random(shape) < free
    utility = torch.from_numpy(random.normal(size=shape))
    select = selector(registry, f"stratified:{inner}", balanced=share)
    selection = select(batch_of(predicted, candidates, seed=seed), utility, n)
    assert selection.indices.shape == (shape[0], n)
    for i in range(shape[0]):
        picks, there = chosen(selection, i), Counter(predicted[i][candidates[i]].tolist())
        assert len(set(picks)) == len(picks) == min(n, sum(there.values()))
        assert candidates[i].ravel()[picks].all()
        turns = fair(list(there.values()), int(share * n + 0.5))
        got = Counter(predicted[i].ravel()[picks].tolist())
        assert all(got[name] >= min(count, turns) for name, count in there.items())
        if inner == "topk":
            ranked = sorted(np.flatnonzero(candidates[i]), key=lambda k: -utility[i].ravel()[k])
            for name, count in got.items():  # the highest of each class, whatever the reason
                of_class = [k for k in ranked if predicted[i].ravel()[k] == name]
                assert set(of_class[:count]) == {k for k in picks if predicted[i].ravel()[k] == name}
            if int(share * n + 0.5) == 0:
                assert picks == sorted(picks, key=lambda k: -utility[i].ravel()[k])
        priorities = selection.priority[i, : len(picks)].tolist()
        assert priorities == sorted(priorities, reverse=True)
    alone = [
        select(
            batch_of(predicted[i : i + 1], candidates[i : i + 1], [f"image {i}"], seed), utility[i : i + 1], n
        ).indices
        for i in range(shape[0])
    ]
    assert torch.equal(selection.indices, torch.cat(alone)), "a choice depends on its image alone"


@pytest.mark.parametrize("inner", ["topk", "uniform", "topk-then-uniform", "uniform-then-topk"])
def test_over_a_pool_each_class_of_each_image_has_its_turn(registry: Registry, inner: str):
    predicted = np.zeros((8, 10, 20), np.int64)
    predicted[:, 0, :6], predicted[:4, 1, :6] = 1, 2  # the second in half of the images
    utility = torch.from_numpy(np.random.default_rng(1).normal(size=predicted.shape))
    selection = selector(registry, f"stratified:{inner}", balanced=0.5)(batch_of(predicted), utility, 12)
    asked = [
        (float(priority), int(predicted[i].ravel()[pick]), i)
        for i in range(8)
        for pick, priority in zip(chosen(selection, i), selection.priority[i], strict=True)
    ]
    asked.sort(reverse=True)
    for turn in range(2):  # 20 classes of images
        served = Counter((name, i) for _, name, i in asked[20 * turn : 20 * turn + 20])
        assert served == {(name, i): 1 for i in range(8) for name in range(3) if name < 2 or i < 4}


@pytest.mark.parametrize("inner", ["uniform", "topk-then-uniform", "uniform-then-topk"])
def test_the_rest_is_as_free_as_if_nothing_was_balanced_before(registry: Registry, inner: str):
    predicted = np.zeros((400, 10, 20), np.int64)
    predicted[:, :, :5] = 1  # a quarter
    utility = torch.from_numpy(np.random.default_rng(0).normal(size=predicted.shape))
    selection = selector(registry, f"stratified:{inner}", balanced=0.6)(batch_of(predicted), utility, 10)
    counts = [int(predicted[i].ravel()[chosen(selection, i)].sum()) for i in range(400)]
    assert np.mean(counts) == pytest.approx(3 + 4 / 4, abs=0.15)


def test_without_a_share_it_is_the_selector_itself(registry: Registry):
    predicted, utility = np.random.default_rng(0).integers(0, 3, (2, 5, 9)), torch.rand(2, 5, 9)
    for name in ("topk", "topk-then-uniform"):
        plain, modified = selector(registry, name), selector(registry, f"stratified:{name}", balanced=0)
        assert torch.equal(
            plain(batch_of(predicted), utility, 6).indices, modified(batch_of(predicted), utility, 6).indices
        )


def test_flags_name_a_modified_piece(cli):
    one_sentence(cli("run", "--acquirer", "power"), "'power' modifies another")
