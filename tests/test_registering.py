"""What a plugin may register: a name that can be typed, and a factory instead of a piece."""

from __future__ import annotations

import pytest
from conftest import one_sentence
from test_plugins import RUN, failed

from alseg.plugins import load_plugins

HEAD = "from functools import cache, partial\nfrom alseg import hookimpl\n\n"
PIECES = """\
class Mine:
    def __call__(self, batch):
        return batch.prediction.entropy()

class Photos:
    classes = splits = recipe = None
    def images(self, split):
        return None

class Watcher:
    @hookimpl
    def run_started(self, folder):
        pass

def utility(batch):
    return batch.prediction.entropy()

def twice(factor):
    return utility

class Twice:
    def __call__(self, acquirer):
        return acquirer

def choose(batch, utility, n, k=3):
    return None
"""
HOOK = "\n@hookimpl\ndef register_KINDs(register):\n    register(NAME, WHAT)\n"
ITSELF = {
    ("acquirer", "Mine()"): "register its class or a function that builds it, such as `register('mine', Mine)`",
    ("acquirer", "utility"): "a function that returns it, such as `register('mine', lambda: utility)`",
    ("acquirer", "lambda batch: 3"): "such as `register('mine', lambda: ...)`",
    ("selector", "partial(choose, k=4)"): "such as `register('mine', lambda: ...)`",
    ("dataset", "Photos()"): "such as `register('mine', Photos)`",
    ("tracker", "Watcher()"): "such as `register('mine', Watcher)`",
    ("recipe", "{'seed': 3}"): "such as `register('mine', lambda: ...)`",
}


@pytest.fixture
def plugin(tmp_path):
    def write(kind: str, name: str, what: str):
        path = tmp_path / "registers.py"
        hook = HOOK.replace("KIND", kind).replace("NAME", repr(name)).replace("WHAT", what)
        path.write_text(HEAD + PIECES + hook)
        return path

    return write


@pytest.mark.parametrize(("kind", "what"), ITSELF)
def test_a_piece_in_place_of_its_factory_is_told_so(plugin, kind, what):
    error = failed(load_plugins([plugin(kind, "mine", what)]))["registers"]
    assert error.startswith(f"the {kind} 'mine' is registered itself: register ")
    assert error.endswith(ITSELF[kind, what])


@pytest.mark.parametrize(
    "what", ["Mine", "lambda: utility", "partial(Mine)", "lambda batch=3: utility", "len", "cache(twice)", "Twice()"]
)
def test_what_builds_a_piece_is_none(plugin, what):
    assert failed(load_plugins([plugin("acquirer", "mine", what)])) == {}


def test_a_run_is_told_so_too(cli, plugin, tmp_path):
    words = ("--plugin", plugin("acquirer", "mine", "Mine()"), *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    one_sentence(cli(*words), "failed to load: the acquirer 'mine' is registered itself", "`register('mine', Mine)`")


@pytest.mark.parametrize(
    ("name", "such"),
    {
        "My Piece": "my-piece",
        "mine:yours": "mine-yours",
        "Entropy": "entropy",
        "a.b": "a-b",
        "a,b": "a-b",
        "-o": "o",
        "größe": "gr-e",
        "": "my-acquirer",
        "none": "my-acquirer",
    }.items(),
)
def test_a_name_that_cannot_be_typed_is_refused(plugin, name, such):
    error = failed(load_plugins([plugin("acquirer", name, "Mine")]))["registers"]
    assert error.startswith(f"the acquirer {name!r} has a name that cannot be typed")
    assert error.endswith(f"such as {such!r}")


@pytest.mark.parametrize("name", ["mine", "my-piece", "my_piece", "deeplab-v3", "2d", "a--b"])
def test_a_name_that_can_be_typed_is_taken(plugin, name):
    assert load_plugins([plugin("acquirer", name, "Mine")]).find("acquirer", name).name == name


@pytest.mark.parametrize(("hook", "name"), [("register_acquirers", "register"), ("register_commands", "app")])
@pytest.mark.parametrize("default", [False, True])
def test_a_hook_that_takes_no_register_registers_nothing(tmp_path, hook, name, default):
    parameters = f"{name}=None" if default else ""
    (tmp_path / "registers.py").write_text(f"{HEAD}@hookimpl\ndef {hook}({parameters}):\n    pass\n")
    error = failed(load_plugins([tmp_path / "registers.py"]))["registers"]
    assert error == f"its hook {hook} lacks the parameter {name!r}, by which it adds to alseg: write def {hook}({name})"
