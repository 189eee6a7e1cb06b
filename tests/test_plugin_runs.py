"""What a run tells plugins of itself, and whom it names where their code fails."""

from __future__ import annotations

import shutil
import sys
import tomllib

import pytest
from test_plugins import QUICK, RUN, SMALL_SHAPES

from alseg.compare.jobs import fork, plan
from alseg.compare.study import Cell
from alseg.errors import UserMistake
from alseg.store import RunFolder
from alseg.testing.tiny import PLUGIN
from alseg.testing.tiny_runs import tiny_registry, tiny_run

NAMED_RUN = """\
from alseg import Answers, hookimpl

class Later:
    sees_truth = False
    def ask(self, questions):
        pass
    def collect(self):
        return Answers((), complete=False)

def later(run, file: str = ""):
    with open(file, "a") as said:
        said.write(run + "\\n")
    return Later()

@hookimpl
def register_oracles(register):
    register("later", later)
"""


def test_an_oracle_knows_its_run_from_all_others(cli, tmp_path):
    path, said = tmp_path / "later.py", tmp_path / "said"
    path.write_text(NAMED_RUN)
    words = ["--plugin", path, *RUN, "--oracle", "later", "-o", f"oracle.file={said}", "--out"]
    for out in ("a", "b"):
        assert cli(*words, tmp_path / out).code == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    assert cli("--plugin", path, "resume", tmp_path / "moved").code == 3
    first, second, again = said.read_text().split()
    assert first == again != second
    assert len(first) == 32


def test_the_runs_of_a_comparison_have_names_of_their_own(cli, tmp_path):
    words = ["compare", "--dataset", "shapes", *SMALL_SHAPES, *QUICK, "--acquirers", "margin,entropy", "--seeds", "1"]
    outcome = cli(*words, "--out", tmp_path / "grid")
    assert outcome.code == 0, outcome.err
    names = [tomllib.loads(path.read_text())["record"]["run"] for path in (tmp_path / "grid").rglob("run.toml")]
    assert len(names) == len(set(names)) > 2


INSTALLED = """\
import json
from alseg import Answers

class Oracle:
    sees_truth = False
    def ask(self, questions):
        json.loads("no json")
    def collect(self):
        return Answers((), complete=False)
"""


def test_the_line_of_an_installed_plugins_own_code_is_named(cli, tmp_path):
    """Not the line of Python's library that it calls."""
    place = tmp_path / "site-packages" / "theirs"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text(INSTALLED)
    path = tmp_path / "door.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(place.parent)!r})\nfrom alseg import hookimpl\nimport theirs\n\n"
        "@hookimpl\ndef register_oracles(register):\n    register('theirs', lambda: theirs.Oracle())\n"
    )
    outcome = cli("--plugin", path, *RUN, "--oracle", "theirs", "--out", tmp_path / "run")
    sys.modules.pop("theirs", None)
    assert (
        f"failed in ask: JSONDecodeError: Expecting value: line 1 column 1 (char 0) ({place}/__init__.py, line 7)"
        in (outcome.err)
    )


LIAR = """\
from alseg import hookimpl

def liar():
    def execute(jobs, logs, watch):
        for job in jobs:
            watch.started(job)
            watch.finished(job, None)
    return execute

@hookimpl
def register_executors(register):
    register("liar", liar)
"""


def test_an_executor_that_says_done_of_what_it_did_not_do_is_named(cli, tmp_path):
    path = tmp_path / "liar.py"
    path.write_text(LIAR)
    words = ["--plugin", path, "compare", "--dataset", "shapes", *SMALL_SHAPES, *QUICK, "--acquirers", "margin"]
    outcome = cli(*words, "--seeds", 1, "--executor", "liar", "--out", tmp_path / "grid")
    assert outcome.code == 1
    assert f"The executor 'liar' of {path} said of 3 of 3 jobs that they are done" in outcome.err


CHOOSER = """\
from alseg import hookimpl

def chooser():
    return lambda batch: {sign} * batch.prediction.entropy()

@hookimpl
def register_acquirers(register):
    register("chooser", chooser)
"""


def test_a_comparison_does_not_go_on_with_runs_of_other_code(cli, tmp_path):
    path, out = tmp_path / "chooser.py", tmp_path / "grid"
    path.write_text(CHOOSER.format(sign=1))
    first = tiny_run(out / "first-rounds" / "one", plugins=path, acquirer="chooser", rounds=1)
    settings = RunFolder(first).settings()
    settings.pop("record")
    cell = Cell("run", "", {**settings, "rounds": 2}, "one", 2, {})
    fork(first, out / "runs" / "run", cell.settings, tiny_registry(path))
    assert len(plan([cell], out, plugins=[path])) == 1
    path.write_text(CHOOSER.format(sign=-1))
    for place in (out / "runs" / "run", first):
        with pytest.raises(UserMistake) as refused:
            plan([cell], out, plugins=[path])
        assert str(refused.value) == f"{place} was made with another chooser.py: give another --out, or move it away."
        if place != first:
            assert cli("--plugin", path, "--plugin", PLUGIN, "resume", place).code == 0
            shutil.rmtree(place)
    package = tmp_path / "choosers"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import register_acquirers\n")
    (package / "inner.py").write_text(CHOOSER.format(sign=1))
    (package / ".#inner.py").symlink_to("nowhere")
    out = tmp_path / "second grid"
    tiny_run(out / "first-rounds" / "one", plugins=package / "__init__.py", acquirer="chooser", rounds=1)
    assert plan([cell], out, plugins=[package / "__init__.py"])
    for unused in ("tests/test_chooser.py", ".venv/lib/other.py"):
        (package / unused).parent.mkdir(parents=True)
        (package / unused).write_text("# of no run\n")
    assert plan([cell], out, plugins=[package / "__init__.py"])
    (package / "inner.py").write_text(CHOOSER.format(sign=-1))
    with pytest.raises(UserMistake, match="was made with another choosers: give another --out"):
        plan([cell], out, plugins=[package / "__init__.py"])
    stored = RunFolder(first).settings()  # as runs of an earlier alseg have it
    del stored["record"]["plugin_sha256"]
    RunFolder(first).write_settings(stored)
    assert len(plan([cell], out, plugins=[path])) == 1
