"""Commands that are printed to be typed name the plugin files that they need."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
from broken_runs import BASE, HEAD, RUN, TINY

import alseg
from alseg.errors import UserMistake
from alseg.hints import FOLDERS, command

LATE = """
class Late:
    sees_truth = False

    def ask(self, questions):
        self.questions = questions

    def collect(self):
        there = [q for q in self.questions if THERE]
        return Answers([Answer(q.item, "sky", "late") for q in there], complete=len(there) == len(self.questions))


@hookimpl
def register_oracles(register):
    register("late", Late)
"""


def test_files_are_given_as_they_lie_from_here_and_those_of_the_folders_are_not(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv(FOLDERS, str(tmp_path / "all"))
    files = [tmp_path / "here" / "my own.py", tmp_path / "other.py", tmp_path / "all" / "mine.py"]
    said = command(files, "resume", Path("runs/a b"))
    assert said == f"`alseg --plugin 'my own.py' --plugin {tmp_path / 'other.py'} resume 'runs/a b'`"
    assert command([], "resume", "run") == "`alseg resume run`"


def test_what_a_waiting_run_says_may_be_typed_as_it_is(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("late.py").write_text(HEAD + LATE.replace("THERE", "False"))
    started = cli(*TINY, "--plugin", "late.py", *RUN, "--oracle", "late", "--out", "run")
    assert started.code == 3 and "--plugin late.py resume run` goes on when they are in." in started.err
    said = {typed(started)}
    without = cli("resume", "run")
    assert without.code == 2 and "cannot be taken up: There is no " in without.err and without.err.count("\n") == 1
    said.add(typed(without))
    again = cli(*TINY, "--plugin", "late.py", *RUN, "--out", "run")
    assert again.code == 2 and "run is a run already" in again.err
    (words,) = {*said, typed(again)}
    Path("late.py").write_text(HEAD + LATE.replace("THERE", "True"))
    assert cli(*words).code == 0


def typed(outcome) -> tuple[str, ...]:
    """The words after `alseg` of the command that was said."""
    return tuple(shlex.split(outcome.err.split("`")[1])[1:])


def test_a_run_of_plugins_says_how_to_give_them_in_a_shell_and_in_python(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(HEAD + '@hookimpl\ndef register_models(register):\n    register("own", TinyModel)\n')
    assert cli(*TINY, "--plugin", "own.py", *BASE, "--model", "own", "--rounds", 1, "--out", "run").code == 0
    said = f"started with --plugin {TINY[1]} --plugin own.py: give that after `alseg`, in Python registry=alseg.load_pl"
    with pytest.raises(UserMistake, match=re.escape(said)) as caught:
        alseg.Segmenter("run")
    files = ast.literal_eval(str(caught.value).partition("load_plugins(")[2].removesuffix(")."))
    assert alseg.Segmenter("run", registry=alseg.load_plugins(files)).round == 0
