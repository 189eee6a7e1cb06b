"""Settings: layers, types, messages, and the way to TOML and back."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from alseg.api import resolve_stored
from alseg.config import flatten, parse_assignments, recipe, resolve
from alseg.errors import UserMistake
from alseg.options import Between, Size, convert, options_of
from alseg.plugins import load_plugins
from alseg.schedule import Schedule
from alseg.settings_file import read_toml, read_toml_table
from alseg.store import RunFolder

RECIPE = """
from alseg import hookimpl
def mine():
    return {"dataset": "shapes", "terms": ["learning-loss"], "learning-loss.weight": 2, "trackers": ["tensorboard"]}
@hookimpl
def register_recipes(register):
    register("mine", mine)
"""


POOLED = """
from alseg import hookimpl
def pooled():
    return {"dataset": "shapes", "pool_pixels_per_round": 12}
@hookimpl
def register_recipes(register):
    register("pooled", pooled)
"""


@pytest.mark.parametrize("terms", ["none", "learning-loss"])
@pytest.mark.parametrize("trackers", ["none", "tensorboard"])
def test_a_stored_run_keeps_its_terms_and_trackers_whatever_its_recipe_has(plugin, tmp_path, terms, trackers):
    registry = load_plugins([plugin(RECIPE)])
    config = resolve(registry, {}, {"recipe": "mine", "terms": terms, "trackers": trackers}).config
    folder = RunFolder.create(tmp_path / "run", {**config.nested(), "record": {}})
    assert resolve_stored(registry, folder, folder.settings()).config == config


def config(registry, toml=None, **flags):
    return resolve(registry, toml or {}, {name.replace("__", "."): value for name, value in flags.items()}).config


def test_layers_defaults_recipe_toml_flags(registry):
    assert config(registry).train.epochs == recipe(registry, "shapes")["train.epochs"]
    assert config(registry, {"train.epochs": 7}).train.epochs == 7
    assert config(registry, {"train.epochs": 7}, train__epochs="9").train.epochs == 9
    assert config(registry).augment.flip == 0.5, "a default that no recipe changes"


def test_the_camvid_recipe_is_the_papers(registry, camvid):
    settings = config(registry, dataset="camvid", dataset__data=str(camvid))
    assert settings.train.size == settings.query.size == Size(360, 480)
    train = settings.train
    assert (train.optimizer, train.learning_rate, train.encoder_rate, train.weight_decay) == ("adam", 5e-4, 0.1, 2e-4)
    assert (train.epochs, train.batch_size, train.schedule) == (50, 4, "multistep")
    assert (train.milestones, train.decay) == ((0.4, 0.8), 0.1)
    assert (settings.first_pixels, settings.pixels_per_round, settings.budget) == (10, 10, 100)
    assert Schedule(settings).total_rounds() == 10
    change = settings.augment
    assert (change.scale, change.flip) == ((0.5, 2.0), 0.5)
    assert (change.jitter, change.brightness, change.contrast, change.saturation, change.hue) == (0.8,) * 4 + (0.2,)
    assert (change.grayscale, change.blur, change.blur_sigma) == (0.2, 0.5, (0.1, 2.0))


def test_size_sets_training_and_query_size(registry):
    settings = config(registry, {"train.size": "32x48", "query.size": "32x48"})
    assert (settings.train.size, settings.query.size, settings.evaluate.size) == (Size(32, 48), Size(32, 48), None)
    cleared = {"train.resize": None, "evaluate.size": None}
    assert flatten({"size": "32x48"}) == {"train.size": "32x48", "query.size": "32x48", **cleared}
    assert flatten({"size": "32x48", "evaluate": {"size": "own"}})["evaluate.size"] == "own"
    with pytest.raises(UserMistake, match=r"^size takes a size HxW .* not 'longer:64'"):
        flatten({"size": "longer:64"})


def test_what_counts_pixels_is_the_last_layers(registry, plugin):
    registry = load_plugins([plugin(POOLED)])
    for flags in ({"budget": "40"}, {"first_pixels": 1, "pixels_per_round": 2}):
        found = config(registry, {"recipe": "pooled"}, **flags)
        assert (found.pool_pixels_per_round, found.cap) == (None, None), flags
    assert config(registry, {"recipe": "pooled"}).pool_pixels_per_round == 12
    assert config(registry, {"recipe": "pooled"}, cap=2).cap == 2
    assert config(registry, {"budget": 40}, pool_pixels_per_round=9).pool_pixels_per_round == 9
    assert config(registry, {"pool_pixels_per_round": 9, "cap": 2}, budget=40).pool_pixels_per_round is None
    for toml in ({"pool_pixels_per_round": 9, "budget": 4}, {"budget": 4, "cap": 2}):
        with pytest.raises(UserMistake, match="pool_pixels_per_round"):
            config(registry, toml)


def test_another_recipe_can_be_asked_for(registry):
    settings = config(registry, recipe="camvid", model__weights="none")
    assert (settings.dataset.name, settings.recipe.name, settings.train.epochs) == ("shapes", "camvid", 50)


@pytest.mark.parametrize(
    ("pixels", "rounds", "expected"),
    [
        ((10, 10, 100), None, [10] * 10),
        ((10, 10, 95), None, [10] * 9 + [5]),
        ((10, 10, 100), 3, [10] * 3),
        ((5, 7, 5), None, [5]),
        ((1, 10, 30), None, [1, 10, 10, 9]),
    ],
)
def test_the_budget_of_each_round(registry, pixels, rounds, expected):
    first, later, budget = pixels
    settings = config(registry, {"first_pixels": first, "pixels_per_round": later, "budget": budget, "rounds": rounds})
    schedule = Schedule(settings)
    assert [schedule.pixels_in(number) for number in range(schedule.total_rounds())] == expected
    assert rounds or schedule.pixels_in(len(expected)) == 0


@pytest.mark.parametrize(
    ("asked", "budget", "rounds", "expected"),
    [
        ((10, 10, 5), 40, None, [10, 10, 5, 10, 5]),
        ((10, 10, 5), 29, None, [10, 10, 5, 4]),
        ((10, 10, 5), 40, 4, [10, 10, 5, 10]),
        ((10, 10), 40, None, [10] * 4),
        ((10, 10, 5), 25, None, [10, 10, 5]),
        ((10, 10, 5), 20, None, [10, 10, 5]),
    ],
)
def test_a_budget_goes_on_from_what_was_asked(registry, asked, budget, rounds, expected):
    settings = {"first_pixels": 10, "pixels_per_round": 10, "budget": budget, "rounds": rounds}
    schedule = Schedule(config(registry, settings), asked)
    assert [schedule.pixels_in(number) for number in range(schedule.total_rounds())] == expected


def test_settings_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text("seed = 3\r\n[compare]\r\nseeds = [1]\r\n", "utf-8-sig", newline="")
    assert read_toml(path) == {"seed": 3}
    assert read_toml_table(path, "compare") == {"seeds": [1]}


def test_settings_survive_toml(registry, tmp_path):
    settings = config(registry, {"selector.top": 0.3, "rounds": 2, "split": "val"})
    path = tmp_path / "settings.toml"
    path.write_text(tomli_w.dumps({**settings.nested(), "record": {"torch": "2"}}))
    assert resolve(registry, read_toml(path), {}).config == settings


def test_hyphens_and_tables_are_the_same_settings():
    nested = tomllib.loads('first-pixels = 3\n[selector]\nname = "topk"\n[train]\nbatch-size = 2\n')
    assert flatten(nested) == {"first_pixels": 3, "selector": "topk", "train.batch_size": 2}
    assert parse_assignments(["train.batch-size=2", "selector.top=0.5"]) == {
        "train.batch_size": "2",
        "selector.top": "0.5",
    }


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("3", int, 3),
        (3.0, int, 3),
        ("1e-3", float, 1e-3),
        ("true", bool, True),
        ("No", bool, False),
        ("a", Literal["a", "b"], "a"),
        ("8", Literal[8, 16], 8),
        ("none", int | None, None),
        ("default", Literal["default"] | Path, "default"),
        ("file", Literal["default"] | Path, Path.cwd() / "file"),
        ("0.5, 2", tuple[float, float], (0.5, 2.0)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ("360x480", Size, Size(360, 480)),
        ("0.1,0.9", Annotated[tuple[float, ...], Between(0, 1)], (0.1, 0.9)),
    ],
)
def test_conversion(value, kind, expected):
    assert convert("key", value, kind) == expected


@pytest.mark.parametrize("kind", [str, Path, Path | None, tuple[str, ...]], ids=str)
def test_what_settings_cannot_be_written_with_is_refused_at_once(kind):
    with pytest.raises(UserMistake, match=r"photos-\\udcfc' is no UTF-8.*: give it another name\.$"):
        convert("dataset.data", "photos-\udcfc", kind)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("3.5", int),
        (3.5, int),
        (True, int),
        ("", int),
        ("nan", float),
        ("inf", float),
        ("maybe", bool),
        (1, Literal["a"]),
        ("1", tuple[float, float]),
        ("a,b", tuple[float, float]),
        ("360", Size),
        ("0x10", Size),
        ("-1x10", Size),
        ("3", Annotated[int, Between(4)]),
        ("0.1,1.1", Annotated[tuple[float, ...], Between(0, 1)]),
    ],
)
def test_what_does_not_convert_names_the_key_and_what_it_takes(value, kind):
    with pytest.raises(UserMistake, match=r"train\.thing takes .+, not "):
        convert("train.thing", value, kind)


@given(st.text(max_size=20), st.sampled_from([int, float, bool, Size, tuple[float, float], Literal["a"], int | None]))
def test_no_text_makes_conversion_fail_in_another_way(text, kind):
    with contextlib.suppress(UserMistake):
        convert("key", text, kind)


def test_a_factorys_parameters_are_its_options():
    def factory(classes: int, top: float = 0.05, name: str = "x", *, deep: bool = False):
        return None

    options = options_of(factory, given=("classes",))
    assert {name: option.default for name, option in options.items()} == {"top": 0.05, "name": "x", "deep": False}
    assert options["top"].describe() == {"name": "top", "type": "a number", "default": 0.05, "required": False}
