"""What a run tells plugins of itself, and whom it names where their code fails."""

from __future__ import annotations

import sys
import tomllib

from test_plugins import QUICK, RUN, SMALL_SHAPES

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
