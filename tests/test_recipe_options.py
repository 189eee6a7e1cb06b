"""The options of a recipe: given like any other piece's, in a run, in a file and in a comparison."""

from __future__ import annotations

import shlex
import tomllib

import pytest
from conftest import one_sentence

from alseg.compare.study import Grid, cells
from alseg.config import flatten, parse_assignments, resolve
from alseg.errors import UserMistake
from alseg.plugins import load_plugins

RECIPE = """\
from typing import Annotated, Literal
from alseg import hookimpl
from alseg.options import Between

def tiny(first: Annotated[int, Between(1)] = 2, speed: Literal["slow", "fast"] = "fast"):
    return {
        "dataset": "shapes", "dataset.train_images": 3, "dataset.val_images": 2,
        "first_pixels": first, "pixels_per_round": 1, "budget": first + 1, "device": "cpu", "report": False,
        "model": {"encoder": "test_resnet.r160_in1k", "weights": "none", "channels": 8}, "size": "64x64",
        "train": {"epochs": 2 if speed == "slow" else 1, "batch_size": 4},
    }

@hookimpl
def register_recipes(register):
    register("tiny", tiny)
    register("plain", lambda: tiny())
"""


@pytest.fixture
def plugin(tmp_path):
    path = tmp_path / "recipes.py"
    path.write_text(RECIPE)
    return path


def test_a_run_takes_its_recipes_options_and_keeps_them(cli, plugin, tmp_path):
    run = tmp_path / "run"
    words = ("--plugin", plugin, "run", "--recipe", "tiny", "--rounds", 1, "--out", run)
    outcome = cli(*words, "-o", "recipe.first=4", "--budget", 6)
    assert outcome.code == 0, outcome.err
    stored = tomllib.loads((run / "run.toml").read_text())
    assert stored["recipe"] == {"name": "tiny", "first": 4, "speed": "fast"}
    assert (stored["first_pixels"], stored["budget"], stored["train"]["epochs"]) == (4, 6, 1)
    assert "Round 0: 4 pixels an image" in outcome.err
    outcome = cli("--plugin", plugin, "resume", run, "--rounds", 2)
    assert outcome.code == 0, outcome.err
    assert tomllib.loads((run / "run.toml").read_text())["recipe"] == stored["recipe"]


def test_what_a_recipe_does_not_take_is_refused(refused, plugin):
    run = ("--plugin", plugin, "run")
    refused([*run, "--recipe", "tiny", "-o", "recipe.frist=4"], "recipe 'tiny' has no option 'frist'; did you mean")
    refused([*run, "--recipe", "tiny", "-o", "recipe.first=0"], "recipe.first takes a whole number at least 1, not '0'")
    refused([*run, "--recipe", "tiny", "-o", "recipe.speed=odd"], "recipe.speed takes slow or fast, not 'odd'")
    refused([*run, "--recipe", "plain", "-o", "recipe.first=4"], "recipe 'plain' has no option 'first'; it has none")
    refused([*run, "-o", "recipe.first=4"], "recipe 'shapes' has no option 'first'")


def test_options_come_in_layers(plugin):
    registry = load_plugins([plugin])
    file = flatten({"recipe": {"name": "tiny", "first": 3, "speed": "slow"}})
    config = resolve(registry, file, parse_assignments(["recipe.first=5"])).config
    assert (config.recipe.options, config.first_pixels, config.train.epochs) == ({"first": 5, "speed": "slow"}, 5, 2)
    assert resolve(registry, file, {"first_pixels": 1}).config.first_pixels == 1, "a setting goes over the recipe's"
    # another recipe takes no options of the one that it replaces
    config = resolve(registry, file, {"recipe": "plain"}).config
    assert config.nested()["recipe"] == "plain"
    assert config.first_pixels == 2
    again = resolve(registry, flatten(resolve(registry, file, {}).config.nested()), {}).config
    assert again == resolve(registry, file, {}).config


def test_a_comparison_takes_them_for_all_runs_and_as_an_axis(cli, plugin):
    words = ("--plugin", plugin, "compare", "--acquirers", "margin", "--commands")
    base = ("--recipe", "tiny", "-o", "recipe.speed=slow")
    lines = cli(*words, *base, "--axis", "recipe.first=2,4").out.splitlines()
    assert len(lines) == 4
    assert all("recipe.speed=slow" in shlex.split(line) for line in lines)
    assert sum("recipe.first=4" in shlex.split(line) for line in lines) == 2
    one_sentence(cli(*words, *base, "-o", "recipe.third=1"), "recipe 'tiny' has no option 'third'")
    registry = load_plugins([plugin])
    grid = Grid({"recipe": ["tiny", "plain"], "acquirer": ["margin"]})
    found = cells(registry, grid, {"recipe": "tiny", "recipe.first": 4}, {})
    by_recipe = {str(cell.given["recipe"]): cell.settings["first_pixels"] for cell in found}
    assert by_recipe == {"tiny": 4, "plain": 2}


def test_the_pixels_of_a_round_have_two_decimals(cli, plugin, tmp_path):
    words = ("--plugin", plugin, "run", "--recipe", "tiny", "--rounds", 1, "--pool-pixels-per-round", 5)
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "Round 0: 1.67 pixels an image" in outcome.err
    assert " 1.67 " in outcome.out


TRACKER = """\
from pathlib import Path
from alseg import hookimpl

class Told:
    def __init__(self, word):
        self.word = word

    @hookimpl
    def round_finished(self, folder, record):
        with (Path(folder) / "told.txt").open("a") as file:
            file.write(f"{self.word} {record['round']} ")

@hookimpl
def register_trackers(register):
    def tensorboard(word: str = "round", times: int = 1):
        return Told(word * times)

    register("tensorboard", tensorboard)
    register("other", tensorboard)

@hookimpl
def register_recipes(register):
    base = {
        "dataset": "shapes", "dataset.train_images": 3, "dataset.val_images": 2,
        "first_pixels": 2, "pixels_per_round": 1, "budget": 3, "device": "cpu", "report": False,
        "model": {"encoder": "test_resnet.r160_in1k", "weights": "none", "channels": 8}, "size": "64x64",
        "train": {"epochs": 1, "batch_size": 4},
    }
    register("told", lambda: base | {"trackers": ["my-trackers:tensorboard"], "my-trackers:tensorboard": {"word": "w"}})
    register("by-file", lambda: base | {"trackers": f"{__file__}:tensorboard", f"{__file__}:tensorboard.word": "f"})
    register("wrong", lambda: base | {"my-trackers:tensorboard.word": "w"})
"""


@pytest.fixture
def trackers(tmp_path):
    """A file whose tracker has the name of one of alseg's own, and recipes that take it."""
    path = tmp_path / "my-trackers.py"
    path.write_text(TRACKER)
    return path


def test_a_recipe_sets_options_of_a_piece_that_needs_its_files_name(cli, trackers, tmp_path):
    run = tmp_path / "run"
    words = ("--plugin", trackers, "run", "--recipe", "told", "--rounds", 1, "--out", run)
    outcome = cli(*words, "-o", "my-trackers:tensorboard.times=2")
    assert outcome.code == 0, outcome.err
    stored = tomllib.loads((run / "run.toml").read_text())
    assert stored["my-trackers:tensorboard"] == {"word": "w", "times": 2}
    assert cli("--plugin", trackers, "resume", run, "--rounds", 2).code == 0
    assert (run / "told.txt").read_text() == "ww 0 ww 1 "


def test_options_of_a_recipes_list_go_with_its_names(trackers):
    registry = load_plugins([trackers])
    (choice,) = resolve(registry, {}, {"recipe": "by-file"}).config.trackers
    assert (choice.name, choice.options) == (f"{trackers}:tensorboard", {"word": "f", "times": 1})
    # whoever takes others, or none, takes none of the options either
    assert resolve(registry, {}, {"recipe": "told", "trackers": "none"}).config.trackers == ()
    (choice,) = resolve(registry, {}, {"recipe": "told", "trackers": "other"}).config.trackers
    assert choice.options == {"word": "round", "times": 1}
    (choice,) = resolve(registry, {}, {"recipe": "told", "trackers": "my-trackers:tensorboard"}).config.trackers
    assert choice.options["word"] == "w"
    with pytest.raises(UserMistake, match=r"options of the tracker 'my-trackers:tensorboard', which is not taken"):
        resolve(registry, {}, {"recipe": "wrong"})
