"""Plugins: a file of ten lines works, what is broken stays local and is said, what breaks the rules is named."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from alseg.plugins import Registry, load_plugins

SMALL_SHAPES = ["-o", "dataset.train_images=4", "-o", "dataset.val_images=2", "-o", "dataset.side=32"]
QUICK = ["-o", "train.epochs=1", "-o", "model.channels=8", "--rounds", "2", "--device", "cpu"]
RUN = ["run", "--dataset", "shapes", *SMALL_SHAPES, *QUICK]
ACQUIRER = "from alseg import hookimpl\n\n@hookimpl\ndef register_acquirers(register):\n    register('mine', mine)\n\n"
SELECTOR = "from alseg import hookimpl\n\n@hookimpl\ndef register_selectors(register):\n    register('mine', mine)\n\n"


def cases(names: Iterable[str]) -> Any:
    """Parametrise by name."""
    return pytest.mark.parametrize("case", list(names))


def said_once(outcome, *words: str) -> None:
    """A failure in one sentence after the rounds' lines: the words, no traceback, no talk of alseg's insides."""
    assert outcome.code in (1, 2), outcome.out
    *before, last = outcome.err.strip().splitlines()
    assert all(line.startswith("Round ") for line in before), outcome.err
    assert last.startswith("alseg: ")
    assert "Something went wrong" not in last
    for word in words:
        assert word in last


def failed(registry: Registry) -> dict[str, str | None]:
    return {plugin.name: plugin.error for plugin in registry.plugins if plugin.status == "failed"}


CHECKERS = """\
from alseg import hookimpl

def checkers(size: int = 4, shift: bool = False):
    \"\"\"Every second square.\"\"\"
    def acquirer(batch):
        import torch
        y, x = (torch.arange(side) // size for side in batch.size)
        squares = ((y[:, None] + x + shift) % 2).float()
        return squares.expand(len(batch.keys), *batch.size)
    return acquirer

@hookimpl
def register_acquirers(register):
    register("checkers", checkers)
"""


def asked(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "rounds" / "01" / "questions.jsonl").read_text().splitlines()]


def test_a_single_file_is_a_plugin(cli, plugin, tmp_path):
    path = plugin(CHECKERS)
    words = [*RUN, "--selector", "topk", "--acquirer", "checkers", "-o", "acquirer.size=2"]
    for shift in (False, True):
        run = tmp_path / f"run {shift}"
        outcome = cli("--plugin", path, *words, "-o", f"acquirer.shift={shift}", "--out", run)
        assert outcome.code == 0, outcome.err
        assert asked(run)
        assert all((q["y"] // 2 + q["x"] // 2) % 2 != shift for q in asked(run))
    said = cli(*words, f"--plugin={path}", "-o", "acquirer.size=big", "--out", tmp_path / "x").err
    assert "acquirer.size takes a whole number, not 'big'" in said


def test_its_options_are_listed_with_defaults(cli, plugin):
    path = plugin(CHECKERS)
    rows = json.loads(cli("plugins", "--json", "--plugin", path).out)
    row = next(row for row in rows if row["name"] == "checkers")
    assert set(row) >= {"name", "kind", "distribution", "version", "options", "status", "error"}
    assert (row["kind"], row["status"], row["error"]) == ("acquirer", "ok", None)
    assert path.name in row["distribution"]
    assert row["options"] == [
        {"name": "size", "type": "a whole number", "default": 4, "required": False},
        {"name": "shift", "type": "true or false", "default": False, "required": False},
    ]
    table = cli("plugins", "--plugin", path).out
    assert "checkers" in table
    assert "size=4" in table


def test_a_run_with_a_plugin_file_says_how_to_resume(cli, plugin, tmp_path):
    path, run = plugin(CHECKERS), tmp_path / "run"
    assert cli("--plugin", path, *RUN, "--acquirer", "checkers", "--rounds", 1, "--out", run).code == 0
    settings = (run / "run.toml").read_text()
    (run / "run.toml").write_text(settings.replace("rounds = 1", "rounds = 2"))
    assert cli("--plugin", path, "resume", run).code == 0
    (run / "run.toml").write_text(settings.replace("rounds = 1", "rounds = 3"))
    said_once(cli("resume", run), "checkers", "--plugin")


def test_json_lists_every_piece_of_alseg(cli):
    outcome = cli("plugins", "--json", "--no-third-party")
    assert (outcome.code, outcome.err) == (0, "")
    rows = json.loads(outcome.out)
    pieces = {"dataset", "model", "acquirer", "selector", "oracle", "term"}
    assert {row["kind"] for row in rows} == pieces | {"recipe", "executor", "tracker"}
    assert {row["distribution"] for row in rows} == {"alseg"}
    assert all(row["status"] == "ok" and row["version"] for row in rows)
    top = next(row["options"] for row in rows if row["name"] == "topk-then-uniform")
    assert top == [{"name": "top", "type": "a number from 0 to 1", "default": 0.05, "required": False}]
    camvid = next(row["options"] for row in rows if (row["name"], row["kind"]) == ("camvid", "dataset"))
    assert camvid == [{"name": "data", "type": "a path", "default": None, "required": True}]
    assert all(row["kind"] == "oracle" for row in json.loads(cli("plugins", "--json", "--kind", "oracle").out))


BROKEN = {
    "raises": ("raise RuntimeError('the moon is full')", "RuntimeError: the moon is full"),
    "exits": ("import sys; sys.exit('no licence')", "SystemExit: no licence"),
    "imports what is missing": ("import no_such_library", "no_such_library"),
    "is no Python": ("def :", "SyntaxError"),
    "misspells a hook": (ACQUIRER.replace("acquirers", "acquirer"), "did you mean register_acquirers"),
    "misspells an argument": (ACQUIRER.replace("acquirers(register)", "acquirers(registry)"), "registry"),
    "registers a number": (ACQUIRER.replace("'mine', mine", "3, len"), "3"),
    "registers no factory": (ACQUIRER.replace("'mine', mine", "'mine', None"), "None"),
    "registers too little": (ACQUIRER.replace("'mine', mine", "'mine'"), "factory"),
    "registers half": (ACQUIRER.replace("'mine', mine", "'mine', len)\n    raise OSError('half'"), "OSError: half"),
    "registers a name twice": (ACQUIRER.replace("'mine', mine", "'mine', len)\n    register('mine', max"), "mine"),
    "registers nothing": ("def register_acquirers(register): pass", "hook"),
}


@cases(BROKEN)
def test_a_broken_plugin_is_listed_with_its_error(cli, plugin, monkeypatch, case):
    text, error = BROKEN[case]
    bad, good = plugin(text, "bad_piece.py"), plugin(CHECKERS)
    words = ["--plugin", bad, "--plugin", good]
    outcome = cli("plugins", "--json", *words)
    assert (outcome.code, outcome.err) == (0, "")
    rows = {(row["kind"], row["name"]): row for row in json.loads(outcome.out)}
    assert ("acquirer", "mine") not in rows, "half a plugin is there"
    assert rows["acquirer", "checkers"]["status"] == rows["acquirer", "margin"]["status"] == "ok"
    row = rows[None, "bad_piece"]
    assert row["status"] == "failed"
    assert error in row["error"]
    assert "bad_piece" in cli("plugins", *words).out
    monkeypatch.setenv("ALSEG_PLUGINS", str(bad.parent))
    said_once(cli(*RUN, "--acquirer", "mine"), "acquirer 'mine'", "bad_piece", error)


def test_a_broken_option_type_fails_when_used(cli, plugin):
    path = plugin(ACQUIRER + "def mine(size: 'Nonsense' = 3): pass\n")
    rows = json.loads(cli("plugins", "--json", "--plugin", path).out)
    row = next(row for row in rows if row["name"] == "mine")
    assert row["status"] == "failed"
    assert "Nonsense" in row["error"]
    said_once(cli("--plugin", path, *RUN, "--acquirer", "mine"), "mine", "Nonsense")


def test_a_default_that_json_does_not_know_harms_nobody(cli, plugin):
    path = plugin(ACQUIRER + "def mine(kinds=frozenset({1})): pass\n")
    outcome = cli("plugins", "--json", "--plugin", path)
    assert outcome.code == 0, outcome.err
    assert "margin" in {row["name"] for row in json.loads(outcome.out)}


def test_a_plugin_file_that_is_not_there(cli, tmp_path):
    said_once(cli("--plugin", tmp_path / "none.py", "plugins"), "none.py")
    said_once(cli("--plugin", tmp_path, "plugins"), f"{tmp_path} is a folder: give a file of it", "ALSEG_PLUGINS=")
    (tmp_path / "__init__.py").touch()
    said_once(cli("--plugin", tmp_path, "plugins"), f"{tmp_path} is a folder", f"{tmp_path}/__init__.py")


FACTORIES = {
    "has a word for users": (
        "def mine():\n    from alseg import UserMistake\n    raise UserMistake('Give a key.')",
        ["The acquirer 'mine' of ", "my_piece.py: Give a key."],
    ),
    "raises at start": ("def mine(): raise ValueError('bad moon')", ["my_piece", "ValueError: bad moon"]),
    "needs a library": ("def mine(): import no_such_library", ["my_piece", "no_such_library"]),
    "needs an option": ("def mine(size: int): return len", ["acquirer.size"]),
    "leaves alseg": ("def mine(): raise SystemExit(0)", ["my_piece"]),
    "gives nothing": ("def mine(): return None", []),
}


@cases(FACTORIES)
def test_a_factory_that_fails_is_named(cli, plugin, tmp_path, case):
    text, words = FACTORIES[case]
    outcome = cli("--plugin", plugin(ACQUIRER + text), *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    said_once(outcome, "acquirer", "'mine'", *words)
    assert not (tmp_path / "run").exists()


RULES = {
    "a word for users": (ACQUIRER, "(_ for _ in ()).throw(__import__('alseg').UserMistake('Give a key.'))"),
    "wrong shape": (ACQUIRER, "torch.zeros(1, 2, 3)"),
    "one image too few": (ACQUIRER, "batch.noise('x').float()[1:]"),
    "NaN": (ACQUIRER, "torch.full(batch.candidates.shape, torch.nan)"),
    "whole numbers": (ACQUIRER, "batch.candidates.long()"),
    "no tensor": (ACQUIRER, "None"),
    "NumPy": (ACQUIRER, "batch.noise('x').numpy()"),
    "an error": (ACQUIRER, "{}['key']"),
    "not a candidate": (SELECTOR, "Selection((~flat).int().argmax(1, keepdim=True).expand(-1, n)[:, :1], flat[:, :1])"),
    "duplicates": (SELECTOR, "Selection(flat.int().argmax(1, keepdim=True).expand(-1, n), flat[:, :n])"),
    "too many": (SELECTOR, "Selection(pick(utility, batch.candidates, n + 1).indices, flat[:, : n + 1])"),
    "outside": (SELECTOR, "Selection(torch.full((len(flat), n), 10**6), flat[:, :n])"),
    "below": (SELECTOR, "Selection(torch.full((len(flat), n), -2), flat[:, :n])"),
    "fractions": (SELECTOR, "Selection(pick(utility, batch.candidates, n).indices.float(), flat[:, :n])"),
    "no selection": (SELECTOR, "None"),
    "another error": (SELECTOR, "{}['key']"),
}


PIECE = """
import torch
from alseg import Selection, pick

def piece(batch, utility=None, n=None):
    flat = batch.candidates.flatten(1)
    return RESULT

def mine():
    return piece
"""


@cases(RULES)
def test_a_piece_that_breaks_the_rules_is_named(cli, plugin, tmp_path, case):
    start, result = RULES[case]
    kind = "acquirer" if start is ACQUIRER else "selector"
    path = plugin(start + PIECE.replace("RESULT", result))
    outcome = cli("--plugin", path, *RUN, f"--{kind}", "mine", "--out", tmp_path / "run")
    mends = {"duplicates": "choose without replacement", "NaN": "look for a division by 0", "fractions": "as int64 and"}
    said_once(outcome, kind, "'mine'", mends.get(case, ""))


NOTHING = {"padding alone": "flat[:, :n].long() * 0 - 1", "no columns": "flat[:, :0].long()"}


@cases(NOTHING)
def test_a_selector_that_chooses_nothing_of_what_there_is_is_named(cli, plugin, tmp_path, case):
    path = plugin(SELECTOR + PIECE.replace("RESULT", f"Selection({NOTHING[case]}, flat[:, :n])"))
    outcome = cli("--plugin", path, *RUN, "--selector", "mine", "--out", tmp_path / "run")
    assert outcome.code == 1
    assert f"The selector 'mine' of {path} chose nothing in round 1, where 4 images have candidates" in outcome.err
    assert "candidates left" not in outcome.err and "no candidate" not in outcome.err
    assert not (tmp_path / "run" / "rounds" / "01" / "questions.jsonl").exists()


@pytest.mark.parametrize("budget", [[], ["--pool-pixels-per-round", "16"]])
def test_a_selector_that_chooses_too_little_is_named(cli, plugin, tmp_path, budget):
    path = plugin(SELECTOR + PIECE.replace("RESULT", "pick(utility, batch.candidates, 1)"))
    outcome = cli("--plugin", path, *RUN, *budget, "--selector", "mine", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert f"The selector 'mine' of {path} chose fewer pixels in round 1 than it was to, in 4 images." in outcome.err
    assert "candidates left" not in outcome.err and "can be asked" not in outcome.err


WATCHER = """\
from pathlib import Path
from alseg import hookimpl

@hookimpl
def run_started(folder, settings):
    Path(folder, "seen").write_text(str(settings["rounds"]))

@hookimpl
def round_finished(record):
    raise RuntimeError(f"no space for round {record['round']}")

@hookimpl
def run_finished(records):
    raise ValueError(str(len(records)))
"""


def test_a_life_cycle_hook_that_raises_is_reported(cli, plugin, tmp_path):
    path = plugin(WATCHER)
    outcome = cli("--plugin", path, *RUN, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "run" / "seen").read_text() == "2"
    assert len((tmp_path / "run" / "rounds.jsonl").read_text().splitlines()) == 2
    reports = [
        line for line in outcome.err.splitlines() if line.startswith("alseg: The plugin ") and "my_piece" in line
    ]
    assert ["no space for round 0" in reports[0], "no space for round 1" in reports[1]] == [True, True]
    assert "run_finished" in reports[2]
    assert len(reports) == 3
    assert "Traceback" not in outcome.err


MEDDLER = """\
from alseg import hookimpl

seen = []

@hookimpl
def round_finished(record):
    seen.append(str(record))
    record.pop("round")
    record["iou"]["road"] = 1.0
"""


def test_what_a_hook_does_with_a_record_no_other_sees(plugin):
    registry = load_plugins([plugin(MEDDLER, "first.py"), plugin(MEDDLER, "second.py")])
    record = {"round": 0, "iou": {"road": 0.5}}
    assert registry.notify("round_finished", folder="run", record=record) == []
    assert record == {"round": 0, "iou": {"road": 0.5}}
    hears = [module for module in registry.manager.get_plugins() if hasattr(module, "seen")]
    assert [module.seen for module in hears] == [[str(record)]] * 2


@pytest.mark.parametrize("pixels", [2, 600])
def test_resuming_a_finished_run_tells_no_plugin(cli, plugin, tmp_path, pixels):
    path, run = plugin(WATCHER), tmp_path / "run"
    budget = ["--first-pixels", pixels, "--pixels-per-round", pixels, "--budget", 10 * pixels]
    assert cli("--plugin", path, *RUN, *budget, "--rounds", 3, "--out", run).code == 0
    outcome = cli("--plugin", path, "resume", run)
    assert (outcome.code, outcome.err) == (0, "")


def test_a_plugin_adds_a_command_and_may_fail_at_it(cli, plugin):
    text = "from alseg import hookimpl\n\n@hookimpl\ndef register_commands(app):\n    {}\n"
    greets = plugin(text.format("@app.command()\n    def greet():\n        print('hello')"))
    assert cli("--plugin", greets, "greet").out == "hello\n"
    broken = plugin(text.format("1 / 0"), "broken.py")
    outcome = cli("--plugin", broken, "plugins", "--json")
    assert outcome.code == 0
    assert "broken" in outcome.err
    assert "ZeroDivisionError" in outcome.err
    assert json.loads(outcome.out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0", "ZeroDivisionError"),
        (
            "from alseg import hookimpl\n\n@hookimpl\ndef round_finnished(folder):\n    pass\n",
            "did you mean round_finished",
        ),
        ("ALSEG_API_VERSION = 99\n" + CHECKERS, "upgrade alseg"),
    ],
)
def test_a_file_that_was_asked_for_and_fails_is_refused(cli, plugin, tmp_path, text, words):
    path = plugin(text)
    outcome = cli("--plugin", path, *RUN, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert outcome.err.startswith(f"alseg: The plugin {path} failed to load: ")
    assert words in outcome.err
    assert not (tmp_path / "run").exists()
    assert cli("--plugin", path, "plugins").code == 0, "which shows it with its error"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero (FILE, line 3)."),
        ("class E(Exception):\n    def __str__(self):\n        1 / 0\n\nraise E\n", "E (FILE, line 5)."),
        (
            "import nowhere_to_be_had\n",
            "ModuleNotFoundError: No module named 'nowhere_to_be_had'; is it to be",
        ),
        (
            "from alseg import hookimpl\n\n@hookimpl\ndef register_terms(register):\n    yield register\n",
            "TypeError: its hook register_terms yields, so that it never runs: it must call register.",
        ),
    ],
)
def test_why_and_where_a_file_fails_to_load_is_said(cli, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    outcome = cli("--plugin", path, "run")
    assert outcome.code == 2
    assert outcome.err.replace(str(path), "FILE").startswith(f"alseg: The plugin FILE failed to load: {said}")
