"""What only lists or explains starts at once: no torch, no plugin before it is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

HEAVY = {"torch", "torchvision", "timm", "numpy", "PIL", "scipy", "matplotlib", "safetensors"}
# On a machine that is slow or shared, more than half a second may be allowed.
SECONDS = 0.5 * float(os.environ.get("ALSEG_TEST_SLOWNESS", "1"))
SCRIPT = Path(sys.executable).with_name("alseg")

MODULES = """
import json, sys
try:
    {code}
except SystemExit as end:
    assert not end.code, end.code
finally:
    print("\\n" + json.dumps(sorted(sys.modules)))
"""


def modules_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after some code."""
    words = [sys.executable, "-c", MODULES.format(code=code)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_alseg_loads_no_plugin_and_nothing_heavy():
    loaded = modules_after("import alseg; assert alseg.hookimpl and alseg.__version__ and dir(alseg)")
    assert not loaded & (HEAVY | {"typer", "rich", "alseg.plugins", "alseg.cli"})
    assert not [name for name in loaded if name.startswith("alseg_")]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["plugins"], ["plugins", "--json"], ["plugins", "--help"], ["run", "--help"], ["resume", "-h"]],
)
def test_what_only_lists_or_explains_does_without_torch(words):
    loaded = modules_after(f"from alseg.cli.app import main; main({words!r})")
    assert not loaded & (HEAVY - {"numpy"})


def test_plugins_are_loaded_without_torch():
    loaded = modules_after("from alseg import load_plugins; load_plugins()")
    assert not loaded & (HEAVY - {"numpy"})


def test_a_mistake_in_the_flags_is_told_without_torch():
    loaded = modules_after("from alseg.cli.app import run_cli; run_cli(['run', '--nonsense'])")
    assert not loaded & (HEAVY - {"numpy"})


def seconds(words: list[str]) -> float:
    """Time of the installed command, the best of five; what other processes take from it does not count."""
    best = float("inf")
    for _ in range(5):
        started, before = time.perf_counter(), os.times()
        subprocess.run([SCRIPT, *words], capture_output=True, check=True)
        wall, after = time.perf_counter() - started, os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        best = min(best, wall, processor)
    return best


@pytest.mark.parametrize("words", [["--help"], ["plugins"]], ids=" ".join)
def test_help_and_plugins_take_under_half_a_second(words):
    assert SCRIPT.exists(), "alseg is not installed beside this Python"
    assert seconds(words) < SECONDS


@pytest.mark.parametrize("words", [["plugins"], ["plugins", "--json"], ["run", "--help"]], ids=" ".join)
def test_a_reader_that_stops_early_is_no_error(words):
    with subprocess.Popen([SCRIPT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_help_is_written_in_any_encoding(encoding):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_plugins_import_from_alseg_at_their_top_loads_no_torch():
    names = "hookimpl, pick, highest, Selection, Answer, Answers, Classes, PoolBatch, Size, Between, UserMistake"
    assert "torch" not in modules_after(f"from alseg import {names}")


def interrupted(folder: Path, words: list[str], **files: str) -> None:
    """The command, with modules put before its own, says that it was interrupted and nothing else."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    path = os.pathsep.join([str(folder), str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (130, "alseg: Interrupted.\n", "")


@pytest.mark.parametrize("way", ["module", "script"])
def test_an_interruption_of_the_imports_is_told(tmp_path, way):
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    module, name = project["scripts"]["alseg"].split(":")
    words = {"module": ["-m", "alseg"], "script": ["-c", f"from {module} import {name}; {name}()"]}
    interrupted(tmp_path, words[way], typer="exec('raise KeyboardInterrupt')")


def test_an_interruption_while_words_are_read_is_told(cli, monkeypatch):
    def interrupt(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.core.TyperGroup.make_context", interrupt)
    outcome = cli("plugins")
    assert (outcome.code, outcome.err) == (130, "alseg: Interrupted.\n")


AGAIN = """
import atexit, os, signal
from alseg import hookimpl

def again():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)

atexit.register(again)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it

@hookimpl
def register_commands(app):
    @app.command("wait")
    def wait():
        raise KeyboardInterrupt

{more}
"""


@pytest.mark.parametrize("more", ["", "raise KeyboardInterrupt"], ids=["in a command", "before it"])
def test_what_is_sent_to_an_interrupted_command_changes_nothing(tmp_path, more):
    words = ["-m", "alseg", "--plugin", str(tmp_path / "mine.py"), "wait"]
    interrupted(tmp_path, words, mine=AGAIN.format(more=more))
