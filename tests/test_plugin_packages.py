"""A package by its `__init__.py`: its modules find one another, and what is not found is told apart from a library."""

from __future__ import annotations

import json
import tomllib

import pytest
from test_plugins import CHECKERS, RUN, failed

from alseg.plugins import load_plugins

PACKAGE = {
    "__init__.py": "from alseg import hookimpl\nfrom . import squares\nfrom .words import NAME\n\n"
    "@hookimpl\ndef register_acquirers(register):\n    register(NAME, squares.checkers)\n",
    "squares.py": CHECKERS.partition("@hookimpl")[0].replace("import torch", "import torch; from . import words"),
    "words.py": "NAME = 'checkers'\n",
}


@pytest.fixture
def package(tmp_path):
    def write(**changed: str):
        folder = tmp_path / "my_package"
        folder.mkdir()
        for name, text in {**PACKAGE, **{f"{name}.py": text for name, text in changed.items()}}.items():
            (folder / name).write_text(text)
        return folder / "__init__.py"

    return write


def test_a_package_is_a_plugin_by_its_file(cli, package, tmp_path):
    path, run = package(), tmp_path / "run"
    (row,) = [row for row in json.loads(cli("plugins", "--json", "--plugin", path).out) if row["name"] == "checkers"]
    assert (row["plugin"], row["distribution"]) == ("my_package", str(path))
    words = ("--plugin", path, *RUN, "--rounds", 2, "--acquirer", "my_package:checkers", "--out", run)
    outcome = cli(*words)
    assert outcome.code == 0, outcome.err
    assert tomllib.loads((run / "run.toml").read_text())["acquirer"]["name"] == "my_package:checkers"


@pytest.mark.parametrize(
    ("first", "words"),
    {
        "import squares": "No module named 'squares'; it is in the package: write `from . import squares`",
        "from my_package import squares": "it is the package itself: write `from . import ...`",
        "from . import nothing": "; it is looked for in ",
        "import no_such_library": "is it to be had by pip install no-such-library?",
    }.items(),
)
def test_what_a_package_lacks_is_said(cli, package, tmp_path, first, words):
    path = package(__init__=f"{first}\n{CHECKERS}")
    assert words in failed(load_plugins([path]))["my_package"]
    said = cli("--plugin", path, *RUN, "--out", tmp_path / "run")
    assert said.code == 2
    assert said.err.startswith(f"alseg: The plugin {path} failed to load: ")
    assert words in said.err


@pytest.mark.parametrize(
    ("first", "words"),
    {
        "import words": "it lies beside the file, which is imported alone: make a package of them",
        "from . import words": "the file is imported alone: give the package",
    }.items(),
)
def test_a_module_of_a_package_is_not_imported_alone(package, first, words):
    path = package(squares=f"{first}\n{CHECKERS}").with_name("squares.py")
    error = failed(load_plugins([path]))["squares"]
    assert words in error
    assert f"--plugin {path.with_name('__init__.py')}" in error


def test_the_modules_of_a_package_are_imported_as_they_are_now(package):
    path = package()
    load_plugins([path])
    path.with_name("words.py").write_text("NAME = 'other-checkers'\n")
    assert load_plugins([path]).find("acquirer", "other-checkers")
