"""Whose piece a name means, where several have it, and in runs that go on."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import one_sentence
from test_plugins import CHECKERS, RUN, failed

from alseg.errors import UserMistake
from alseg.plugins import load_plugins


def entry_point(name: str, distribution: str, module: str) -> EntryPoint:
    made = EntryPoint(name, module, "alseg")
    vars(made)["dist"] = SimpleNamespace(name=distribution, version="1.2")
    return made


@pytest.fixture
def two_margins(plugin, tmp_path, monkeypatch):
    """alseg's margin, and one of another distribution."""
    plugin(CHECKERS.replace('"checkers"', '"margin"'), "their_margin.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield [entry_point("pixelpick", "alseg", "alseg_pixelpick.plugin"), entry_point("x", "theirs", "their_margin")]
    sys.modules.pop("their_margin", None)


def test_a_name_of_alsegs_own_stays_its_own(two_margins):
    registry = load_plugins(entry_points=two_margins)
    assert failed(registry) == {}
    assert registry.find("acquirer", "margin").plugin.distribution == "alseg"
    for distribution in ("alseg", "theirs"):
        assert registry.find("acquirer", f"{distribution}:margin").plugin.distribution == distribution
    for name, words in (
        ("alseg:checkers", "There is no acquirer 'alseg:checkers'"),
        ("theirs:entropy", "There is no acquirer 'theirs:entropy'; there are margin of theirs."),
        ("others:margin", "no distribution or file called 'others' .* write alseg:margin or theirs:margin."),
        ("others:entropy", "no distribution or file called 'others' .* write entropy."),
        ("others:none", "no distribution or file called 'others' .* those that have some are alseg, theirs."),
    ):
        with pytest.raises(UserMistake, match=words):
            registry.find("acquirer", name)


@pytest.fixture
def two_files(plugin, tmp_path):
    """Two files with an acquirer of one name, told apart by their option's default."""
    (tmp_path / "other").mkdir()
    return [plugin(CHECKERS), plugin(CHECKERS.replace("size: int = 4", "size: int = 8"), "other/their_piece.py")]


def test_a_name_claimed_by_two_others_fails_only_when_used(two_files, cli):
    registry = load_plugins(two_files)
    assert failed(registry) == {}
    with pytest.raises(UserMistake, match=r"'checkers'.* write my_piece:checkers or their_piece:checkers to choose"):
        registry.find("acquirer", "checkers")
    for name, size in (("my_piece:checkers", 4), ("their_piece:checkers", 8), (f"{two_files[1]}:checkers", 8)):
        assert registry.find("acquirer", name).options()["size"].default == size
    listed = cli(*plugin_flags(two_files), "plugins", "--kind", "acquirer").out
    assert all(name in listed for name in ("my_piece:checkers", "their_piece:checkers"))


def plugin_flags(files: Iterable[Path]) -> list[object]:
    return [word for file in files for word in ("--plugin", file)]


def test_a_run_goes_on_with_the_piece_that_it_began_with(two_files, cli, tmp_path):
    mine, theirs = two_files
    begun = ["--plugin", mine, *RUN[:-4], "--rounds", 1, "--device", "cpu", "--acquirer", "checkers", "--out"]
    assert cli(*begun, tmp_path / "run").code == 0
    settings = tomllib.loads((tmp_path / "run/run.toml").read_text())
    assert settings["record"]["pieces"] == {"acquirer checkers": str(mine)}
    more = cli("--plugin", theirs, "--plugin", mine, "resume", tmp_path / "run", "--rounds", 2)
    assert more.code == 0, more.err
    registry = load_plugins(two_files).recalling(settings["record"])
    assert registry.find("acquirer", "checkers").options()["size"].default == 4
    with pytest.raises(UserMistake, match=r"The run took the acquirer 'checkers' of .*my_piece.py, which is not there"):
        load_plugins([theirs]).recalling(settings["record"]).find("acquirer", "checkers")
    moved = mine.rename(theirs.parent / mine.name)
    assert load_plugins([moved]).recalling(settings["record"]).find("acquirer", "checkers").plugin.name == "my_piece"


def test_a_comparisons_runs_go_on_with_the_pieces_that_they_began_with(two_files, cli, tmp_path):
    mine, theirs = two_files
    words = ["compare", *RUN[1:-4], "--rounds", 2, "--device", "cpu", "--acquirers", "checkers", "--seeds", 1]
    outcome = cli("--plugin", mine, *words, "--out", tmp_path / "grid")
    assert outcome.code == 0, outcome.err
    runs = {path.parent: tomllib.loads(path.read_text()) for path in (tmp_path / "grid/runs").rglob("run.toml")}
    (run,) = (run for run, settings in runs.items() if settings["acquirer"]["name"] == "checkers")
    assert runs[run]["record"]["pieces"] == {"acquirer checkers": str(mine)}
    assert all("pieces" not in settings["record"] for other, settings in runs.items() if other != run)
    more = cli("--plugin", theirs, "--plugin", mine, "resume", run, "--rounds", 3)
    assert more.code == 0, more.err


def test_a_run_does_not_go_on_with_alsegs_own_in_anothers_place(plugin, cli, tmp_path):
    path = plugin(CHECKERS.replace('"checkers"', '"margin"'), "theirs.py")
    begun = cli("--plugin", path, *RUN, "--acquirer", "theirs:margin", "--out", tmp_path / "theirs")
    assert begun.code == 0, begun.err
    bare = cli("--plugin", path, *RUN, "--acquirer", "margin", "--out", tmp_path / "own")
    assert bare.code == 0
    assert f"The acquirer 'margin' is alseg's own; that of {path} is had as theirs:margin." in bare.err
    assert "pieces" not in tomllib.loads((tmp_path / "own/run.toml").read_text())["record"]
    untold = cli("--plugin", path, *RUN, "--rounds", 1, "--out", tmp_path / "untold")
    assert tomllib.loads((tmp_path / "untold/run.toml").read_text())["acquirer"]["name"] == "margin"
    assert "alseg's own" not in untold.err, "the recipe's choice, and nobody's word"
    settings = tomllib.loads((tmp_path / "theirs/run.toml").read_text())
    assert settings["acquirer"]["name"] == "theirs:margin"
    # as if alseg had none of this name when the run began
    with pytest.raises(UserMistake, match=r"The run took the acquirer 'margin' of .*theirs.py, which is not there"):
        load_plugins().recalling({"pieces": {"acquirer margin": str(path)}}).find("acquirer", "margin")
    assert "pieces" not in settings["record"], "a name with its distribution's needs no record"


def test_no_third_party(two_margins, plugin):
    registry = load_plugins([plugin(CHECKERS)], third_party=False, entry_points=two_margins)
    assert {p.distribution for p in registry.plugins} == {"alseg", str(plugin(CHECKERS))}, "a file asked for stays"
    assert registry.find("acquirer", "margin").plugin.distribution == "alseg"


HOOKED = (
    CHECKERS
    + """

@hookimpl
def run_started(folder):
    with open(folder + "/told.txt", "a") as file:
        file.write("told\\n")
"""
)


@pytest.fixture
def installed(plugin, tmp_path, monkeypatch):
    """A file whose module is an entry point of the distribution my-dist."""
    path = plugin(HOOKED, "installed_module.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = entry_point("mine", "my-dist", "installed_module")

    def found(**chosen: str) -> Any:
        there = entry_points(**chosen)  # for which other libraries ask too, when they are first imported
        return EntryPoints([*there, mine]) if chosen == {"group": "alseg"} else there

    monkeypatch.setattr("importlib.metadata.entry_points", found)
    yield path
    sys.modules.pop("installed_module", None)


def test_a_file_that_is_installed_too_is_one_plugin(installed, cli, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    again = tmp_path / "link" / installed.name
    rows = json.loads(cli("--plugin", installed, "--plugin", again, "plugins", "--json").out)
    assert [row["distribution"] for row in rows if row["name"] == "checkers"] == ["my-dist"]
    for number, name in enumerate(("checkers", "my-dist:checkers", "installed_module:checkers")):
        run = tmp_path / f"run{number}"
        assert cli("--plugin", installed, *RUN, "--rounds", 1, "--acquirer", name, "--out", run).code == 0
        assert (run / "told.txt").read_text() == "told\n"
    settings = (tmp_path / "run0" / "run.toml").read_text()
    assert settings.count('"my-dist"') == 1
    (tmp_path / "run0" / "run.toml").write_text(settings.replace('"my-dist"', f'"{installed}"'))  # taken as a file
    assert cli("--plugin", installed, "resume", tmp_path / "run0", "--rounds", 2).code == 0


def test_a_file_that_is_installed_and_breaks_is_refused(installed, cli, tmp_path):
    installed.write_text("1 / 0\n")
    assert cli(*RUN, "--rounds", 1, "--out", tmp_path / "run").code == 0
    one_sentence(cli("--plugin", installed, *RUN), f"The plugin {installed} failed to load: ZeroDivisionError")


def test_an_entry_point_that_leads_nowhere(two_margins):
    nowhere = [entry_point("a", "theirs", "no_such_module"), entry_point("b", "theirs", "json:no_such_name")]
    registry = load_plugins(entry_points=[*two_margins, *nowhere])
    assert set(failed(registry)) == {"a", "b"}
    with pytest.raises(UserMistake) as caught:
        registry.find("acquirer", "marginal")
    first, second, third = str(caught.value).splitlines()  # a line each
    assert first.startswith("There is no acquirer 'marginal'; did you mean margin")
    assert second.startswith("The plugin a of theirs failed to load") and "no_such_module" in second
    assert third.startswith("The plugin b of theirs failed to load")


def test_registries_share_nothing(plugin):
    assert any(piece.name == "checkers" for piece in load_plugins([plugin(CHECKERS)]).pieces)
    assert not any(piece.name == "checkers" for piece in load_plugins().pieces)


def test_two_files_of_one_name(cli, plugin, tmp_path):
    (tmp_path / "other").mkdir()
    first, second = plugin(CHECKERS), plugin(CHECKERS, "other/my_piece.py")
    registry = load_plugins([first, second])
    assert failed(registry) == {}
    for path in (first, second):
        assert registry.find("acquirer", f"{path}:checkers").plugin.distribution == str(path)
    with pytest.raises(UserMistake, match=f"write {first}:checkers or {second}:checkers to choose"):
        registry.find("acquirer", "checkers")
    with pytest.raises(UserMistake, match=f"write {first}:checkers or {second}:checkers to choose"):
        registry.find("acquirer", "my_piece:checkers")
    with pytest.raises(UserMistake, match=f"write {first}:checkers or {second}:checkers"):
        registry.find("acquirer", "others:checkers")
    listed = json.loads(cli(*plugin_flags([first, second]), "plugins", "--json").out)
    written = [row["written"] for row in listed if row["name"] == "checkers"]
    assert written == [f"{first}:checkers", f"{second}:checkers"]
    assert load_plugins(str(first)).files == load_plugins(first).files == [first], "one file needs no list"


@pytest.mark.parametrize(("name", "own"), [("margin", "margin:margin"), ("power", "{path}:margin")])
def test_a_file_called_as_a_piece_is_found_by_the_name_that_is_said(cli, plugin, tmp_path, name, own):
    path = plugin(CHECKERS.replace('"checkers"', '"margin"'), f"{name}.py")
    own = own.format(path=path)
    bare = cli("--plugin", path, *RUN, "--acquirer", "margin", "--rounds", 1, "--out", tmp_path / "run")
    assert f"that of {path} is had as {own}." in bare.err
    assert load_plugins([path]).find("acquirer", own).plugin.file_name == name
    assert load_plugins([path]).find("acquirer", "power:margin").is_modifier
