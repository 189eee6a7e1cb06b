"""How plugins come in, and what is said of those that cost or break something."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import one_sentence
from test_plugins import ACQUIRER, CHECKERS, RUN, failed

from alseg.lacking import install_hint
from alseg.pieces import GIVEN
from alseg.plugin_modules import API_VERSION
from alseg.plugins import load_plugins

MINE = ACQUIRER + "def mine(): pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that ALSEG_PLUGINS names."""
    place = tmp_path / "my plugins"
    place.mkdir()
    monkeypatch.setenv("ALSEG_PLUGINS", str(place))
    return place


def test_files_in_a_folder_of_the_environment(cli, folder, tmp_path):
    (folder / "checks.py").write_text(CHECKERS)
    for name in ("_helper.py", "test_checks.py", "conftest.py", "notes.txt"):
        (folder / name).write_text("raise RuntimeError('is no plugin')")
    registry = load_plugins()
    assert failed(registry) == {}
    assert registry.files == [folder / "checks.py"]
    run = tmp_path / "run"
    outcome = cli(*RUN, "--acquirer", "checkers", "--rounds", 1, "--out", run)
    assert outcome.code == 0, outcome.err
    assert str(folder / "checks.py") in (run / "run.toml").read_text()
    assert not any(piece.name == "checkers" for piece in load_plugins(third_party=False).pieces)
    # one that is named as well is loaded once, as where a comparison's process is told of it
    assert load_plugins([folder / "checks.py"]).find("acquirer", "checkers")


def test_what_is_to_be_typed_names_no_file_that_fails_to_load(cli, folder, tmp_path, monkeypatch):
    (folder / "checks.py").write_text(CHECKERS)
    (folder / "bad.py").write_text("1 / 0")
    run = tmp_path / "run"
    assert cli(*RUN, "--acquirer", "checkers", "--rounds", 1, "--out", run).code == 0
    monkeypatch.delenv("ALSEG_PLUGINS")
    words = shlex.split(cli("resume", run, "--rounds", 2).err.split("`")[1])
    assert words[:3] == ["alseg", "--plugin", str(folder / "checks.py")]
    outcome = cli(*words[1:], "--rounds", 2)
    assert outcome.code == 0, outcome.err


def test_a_folder_that_is_not_there_keeps_nobody_from_working(cli, folder, tmp_path, monkeypatch):
    (folder / "checks.py").write_text(CHECKERS)
    (folder / "bad.py").write_text("1 / 0")
    monkeypatch.setenv("ALSEG_PLUGINS", os.pathsep.join([str(tmp_path / "away"), str(folder), ""]))
    registry = load_plugins()
    assert set(failed(registry)) == {"away", "bad"}
    assert f"{tmp_path / 'away'} cannot be read" in failed(registry)["away"]
    assert registry.find("acquirer", "checkers")
    assert registry.files == [folder / "checks.py"], "a run's record names what can be given by --plugin"
    outcome = cli("plugins")
    assert outcome.code == 0
    assert "ALSEG_PLUGINS" in outcome.out


VERSIONS = {
    API_VERSION + 1: ("failed", f"version {API_VERSION + 1} of alseg's plugin API, and this alseg has {API_VERSION}"),
    API_VERSION: ("ok", ""),
    0: ("failed", "upgrade the plugin"),
    "'1'": ("failed", "ALSEG_API_VERSION is a whole number such as 1, not '1'"),
    "True": ("failed", "not True"),
}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_plugin_says_for_which_api_it_was_written(tmp_path, version):
    status, words = VERSIONS[version]
    (tmp_path / "piece.py").write_text(f"ALSEG_API_VERSION = {version}\n{MINE}")
    plugin = next(p for p in load_plugins([tmp_path / "piece.py"]).plugins if p.name == "piece")
    assert plugin.status == status
    assert words in (plugin.error or "")
    assert any(p.name == "mine" for p in load_plugins([tmp_path / "piece.py"]).pieces) == (status == "ok")


@pytest.mark.parametrize("fault", ["from alseg import NoSuchName", "import no_such_library", "1 / 0"])
def test_for_which_api_a_plugin_was_written_is_said_even_where_its_import_fails(tmp_path, fault):
    (tmp_path / "piece.py").write_text(f"ALSEG_API_VERSION = {API_VERSION + 1}\n{fault}\n{MINE}")
    plugin = next(p for p in load_plugins([tmp_path / "piece.py"]).plugins if p.name == "piece")
    assert plugin.error == (
        f"it is written for version {API_VERSION + 1} of alseg's plugin API, and this alseg has {API_VERSION}: "
        "upgrade alseg"
    )


def test_a_hook_with_an_argument_that_there_is_not_says_what_there_is(tmp_path):
    (tmp_path / "piece.py").write_text(
        "from alseg import hookimpl\n\n@hookimpl\ndef round_finished(folder, results):\n    pass\n"
    )
    plugin = next(p for p in load_plugins([tmp_path / "piece.py"]).plugins if p.name == "piece")
    assert plugin.error == (
        "its hook round_finished takes 'results', which alseg does not give; it gives folder, record"
    )


def test_two_files_of_one_name_are_two_modules(tmp_path):
    for folder, word in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "piece.py").write_text(f"WORD = {word!r}\n" + MINE.replace("'mine'", repr(word)))
    registry = load_plugins([tmp_path / "a/piece.py", tmp_path / "b/piece.py"])
    modules = [sys.modules[registry.find("acquirer", word).factory.__module__] for word in ("first", "second")]
    assert [module.WORD for module in modules] == ["first", "second"]


def alseg_in_a_process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "alseg", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def test_what_a_plugin_costs_every_command_is_said(tmp_path):
    (tmp_path / "eager.py").write_text("import torch\n" + MINE)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.6)\n" + MINE.replace("'mine'", "'other'"))
    found = alseg_in_a_process("plugins", ALSEG_PLUGINS=str(tmp_path))
    assert found.returncode == 0
    eager, slow = found.stderr.strip().splitlines()
    assert eager.startswith("alseg: The plugin eager of ")
    assert "imports torch when it is loaded, which costs every command" in eager
    assert "The plugin slow of" in slow
    assert "0.6 s to load" in slow
    rows = json.loads(alseg_in_a_process("plugins", "--json", ALSEG_PLUGINS=str(tmp_path)).stdout)
    assert {row["name"] for row in rows if row["warning"]} == {"mine", "other"}


def test_what_a_plugin_prints_is_not_among_a_commands_own_words(cli, tmp_path):
    path = tmp_path / "loud.py"
    hook = "\n@hookimpl\ndef run_started(folder):\n    print('starting')\n"
    path.write_text(
        "print('importing')\n" + CHECKERS.replace("def acquirer", "print('making')\n    def acquirer") + hook
    )
    outcome = cli("plugins", "--json", "--plugin", path)
    assert json.loads(outcome.out)
    assert outcome.err == "importing\n"
    outcome = cli("--plugin", path, *RUN, "--acquirer", "checkers", "--json", "--out", tmp_path / "run")
    assert json.loads(outcome.out)["rounds"]
    assert all(word in outcome.err for word in ("importing", "making", "starting"))


def test_a_hook_that_exits_ends_no_run(cli, tmp_path):
    path = tmp_path / "leaver.py"
    path.write_text(
        "import sys\nfrom alseg import hookimpl\n\n@hookimpl\ndef run_started(folder):\n    sys.exit('bye')\n"
    )
    outcome = cli("--plugin", path, *RUN, "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "leaver failed in run_started: SystemExit: bye" in outcome.err


@pytest.mark.parametrize("name", ["run", "plugins"])
def test_a_command_does_not_take_anothers_place(cli, tmp_path, name):
    path = tmp_path / "taker.py"
    path.write_text(
        "from alseg import hookimpl\n\n@hookimpl\ndef register_commands(app):\n"
        f"    @app.command({name!r})\n    def taken():\n        print('mine')\n"
        "    @app.command()\n    def say_so():\n        print('said')\n"
    )
    outcome = cli("--plugin", path, name, "--help")
    assert outcome.code == 0
    assert "Examples" in outcome.out
    assert (
        outcome.err.startswith(f"alseg: The command {name!r} of {path}:taker is left out") and "rename" in outcome.err
    )
    assert cli("--plugin", path, "say-so").out == "said\n"


def test_a_group_of_commands_takes_no_place_either(cli, tmp_path):
    path = tmp_path / "taker.py"
    path.write_text(
        "import typer\nfrom alseg import hookimpl\n\n@hookimpl\ndef register_commands(app):\n"
        "    for name in ('run', 'plugins', 'mine'):\n        group = typer.Typer()\n"
        "        group.command('go')(lambda: print('went'))\n        group.command('stay')(lambda: None)\n"
        "        app.add_typer(group, name=name)\n"
        "    @app.callback()\n    def root():\n        pass\n"
    )
    outcome = cli("--plugin", path, "run", "--help")
    assert "Examples" in outcome.out
    for said in ("The command 'run' of", "The command 'plugins' of", "replaced the callback"):
        assert said in outcome.err
    assert cli("--plugin", path, "mine", "go").out == "went\n"
    assert cli("--plugin", path, "--version").out.startswith("alseg ")


def test_a_plugin_without_a_piece_is_listed_and_shown(cli, tmp_path):
    (tmp_path / "greets.py").write_text(
        "from alseg import hookimpl\n\n@hookimpl\ndef register_commands(app):\n    app.command('greet')(lambda: None)\n"
    )
    rows = json.loads(cli("plugins", "--json", "--plugin", tmp_path / "greets.py").out)
    row = next(row for row in rows if row["name"] == "greets")
    assert (row["kind"], row["status"], row["commands"]) == (None, "ok", ["greet"])
    assert row["says"] == "Its hooks: register_commands. Its commands: alseg greet."
    for words in (("show", "greets"), ("show", "greet"), ()):
        assert "Its commands: alseg greet." in cli("plugins", *words, "--plugin", tmp_path / "greets.py").out
    assert "register_acquirers" in cli("plugins", "show", "pixelpick").out


def test_plugins_are_listed_by_kind_and_name(cli):
    listed = cli("plugins").out.splitlines()[1:]
    assert all(line == line.rstrip() for line in listed)
    kinds = [line.split()[0] for line in listed]
    assert list(dict.fromkeys(kinds)) == [kind for kind in [*GIVEN, "plugin"] if kind in kinds]
    rows = [(row["kind"], row["name"]) for row in json.loads(cli("plugins", "--json", "--kind", "acquirer").out)]
    assert rows == sorted(rows) and len(rows) > 5


def test_what_a_pieces_processes_print_is_not_among_a_commands_own_words(tmp_path):
    path = tmp_path / "loud.py"
    path.write_text(CHECKERS.replace("def acquirer", "__import__('os').system('echo noise')\n    def acquirer"))
    words = ["--plugin", path, *RUN, "--acquirer", "checkers", "--rounds", 1, "--json", "--out", tmp_path / "run"]
    found = alseg_in_a_process(*words)
    assert json.loads(found.stdout)["rounds"], found.stderr
    assert "noise" in found.stderr


def test_what_a_plugins_processes_print_while_it_is_loaded_is_not_in_the_json(tmp_path):
    loud = "__import__('os').system('echo noise')\n"
    at_import, in_hook = tmp_path / "loud.py", tmp_path / "louder.py"
    at_import.write_text(loud + MINE)
    in_hook.write_text(f"from alseg import hookimpl\n\n@hookimpl\ndef register_commands(app):\n    {loud}")
    found = alseg_in_a_process("plugins", "--json", "--plugin", at_import, "--plugin", in_hook)
    assert "mine" in {row["name"] for row in json.loads(found.stdout)}
    assert found.stderr.count("noise") == 2


PANIC = "class Panic(BaseException):\n    pass\n\n"  # as of libraries written in Rust


def test_a_panic_of_a_library_is_its_plugins_error(cli, tmp_path):
    path = tmp_path / "panics.py"
    path.write_text(PANIC + "raise Panic('at import')\n")
    rows = json.loads(cli("plugins", "--json", "--plugin", path).out)
    (row,) = [row for row in rows if row["plugin"] == "panics"]
    assert row["error"] == f"Panic: at import ({path}, line 4)"
    path.write_text(PANIC + MINE + "\n\n@hookimpl\ndef run_started(folder):\n    raise Panic('in a hook')\n")
    outcome = cli("--plugin", path, *RUN, "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0
    assert f"The plugin {path}:panics failed in run_started: Panic: in a hook" in outcome.err


@pytest.mark.parametrize("place", ["def mine():\n    raise Panic('broke')", "def mine():\n    return broke"])
def test_a_panic_of_a_library_names_the_piece(cli, tmp_path, place):
    path = tmp_path / "panics.py"
    path.write_text(
        f"from alseg import hookimpl\n\n{PANIC}def broke(batch):\n    raise Panic('broke')\n\n\n{place}\n\n\n"
        "@hookimpl\ndef register_acquirers(register):\n    register('mine', mine)\n"
    )
    outcome = cli("--plugin", path, *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"The acquirer 'mine' of {path} failed" in outcome.err
    assert "Panic: broke" in outcome.err


def test_a_question_on_what_to_install_ends_as_one(cli, tmp_path):
    path = tmp_path / "lacks.py"
    path.write_text(
        "from alseg import hookimpl\n\n\ndef mine():\n    import no_such_library\n\n\n"
        "@hookimpl\ndef register_acquirers(register):\n    register('mine', mine)\n"
    )
    outcome = cli("--plugin", path, *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.strip().endswith("is it to be had by pip install no-such-library?")


def test_hooks_are_traced(cli, tmp_path):
    path = tmp_path / "piece.py"
    path.write_text(CHECKERS + "\n@hookimpl\ndef round_finished(record):\n    raise OSError('full')\n")
    words = ("--plugin", path, "--trace-hooks", *RUN, "--acquirer", "checkers", "--rounds", 1)
    outcome = cli(*words, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("alseg: hook ")]
    own = [line for line in lines if f"of {path}:piece" in line]
    assert [line.split()[2] for line in own] == ["register_acquirers(register)", "round_finished(folder,"]
    assert own[1].endswith("raised OSError: full")
    assert any("register_models(register) of alseg:pixelpick" in line for line in lines)
    assert "hook" not in cli("plugins", "--plugin", path).err


def test_what_to_install_is_found_in_the_distribution(monkeypatch):
    requirements = [
        "numpy>=1",
        "Heavy.Lib>=2; extra == 'all'",
        "other; extra == 'all'",
        "heavy-lib>=2; extra == 'heavy'",
    ]
    requirements += ["split-core>=1; extra == 'split'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: requirements if name == "theirs" else None)
    for module, hint in {
        "heavy_lib.part": "; pip install 'theirs[heavy]'",
        "numpy": "; pip install 'numpy>=1'",
        "split": "; pip install 'theirs[split]'",  # a distribution that has a part of the library's name more
        "unheard": "; is it to be had by pip install unheard?",
        "": "",
    }.items():
        assert install_hint(ImportError("x", name=module), "theirs") == hint


def test_a_plugin_without_its_library(cli, tmp_path):
    (tmp_path / "piece.py").write_text("import no_such_library\n" + MINE)
    (error,) = failed(load_plugins([tmp_path / "piece.py"])).values()
    assert error.endswith("No module named 'no_such_library'; is it to be had by pip install no-such-library?")


def test_show_tells_all_of_a_piece(cli, tmp_path):
    out = cli("plugins", "show", "topk-then-uniform").out
    assert "selector topk-then-uniform, of alseg" in out
    assert "selector.top" in out
    assert "a number from 0 to 1" in out
    rows = json.loads(cli("plugins", "show", "camvid", "--json").out)
    assert [row["kind"] for row in rows] == ["dataset", "recipe"]
    assert rows[0]["options"][0] == {"name": "data", "type": "a path", "default": None, "required": True}
    assert "must be given" in cli("plugins", "show", "camvid", "--kind", "dataset").out
    names = [
        option["name"] for option in json.loads(cli("plugins", "show", "power:margin", "--json").out)[0]["options"]
    ]
    assert names == ["beta", "form"]
    assert "learning-loss.weight" in cli("plugins", "show", "learning-loss", "--kind", "term").out
    (tmp_path / "bad.py").write_text("1 / 0")
    assert "ZeroDivisionError" in cli("plugins", "show", "bad", "--plugin", tmp_path / "bad.py").out
    one_sentence(cli("plugins", "show", "margn"), "no piece 'margn'; did you mean margin")
    one_sentence(cli("plugins", "show", "margin", "--kind", "color"), "no kind 'color'")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("piece", "--kind", "aquirer"), "no kind 'aquirer'; did you mean acquirer"),
        (("My Piece", "--kind", "model"), "cannot be called 'My Piece'"),
        (("class", "--kind", "model"), "cannot be called 'class'"),
        (("json", "--kind", "model"), "is there already"),
        (("torch", "--kind", "model"), "is there already"),
        (("my_", "--kind", "model"), "cannot be called 'my_'"),
        (("margin", "--kind", "acquirer"), "acquirer 'margin' of alseg is there already"),
        (("alseg_more", "--kind", "model"), "is there already"),
        (("there", "--kind", "model"), "there is there already"),
        (("none", "--kind", "acquirer"), "cannot be called 'none'"),
        (("train", "--kind", "term"), "'train' is what a setting of every run is called"),
        (("record", "--kind", "tracker"), "'record' is what a setting of every run is called"),
        (("pillow", "--kind", "acquirer"), "'pillow' is the name of a package that is there already"),
    ],
)
def test_packages_that_cannot_be_begun(cli, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    one_sentence(cli("plugins", "new", *words), said)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
