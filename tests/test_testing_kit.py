"""Every registered piece keeps its contract, and how the kit is called."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from pieces import TINY, called, options_of, tiny

from alseg import hookimpl
from alseg.errors import UserMistake
from alseg.pieces import GIVEN, Piece
from alseg.plugins import load_plugins
from alseg.testing import (
    ContractError,
    check_acquirer,
    check_dataset,
    check_executor,
    check_model,
    check_oracle,
    check_piece,
    check_recipe,
    check_selector,
    check_term,
    check_tracker,
    checks_of,
    pool_batch,
    tiny_dataset,
    tiny_model,
    tiny_run,
)
from alseg.testing.tiny import PLUGIN

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "testing.md").read_text()
REGISTRY = load_plugins([PLUGIN], third_party=False)
MISSING = ("not installed", "pip install")


def marked(piece: Piece):
    marks = [pytest.mark.slow] if tiny(piece).slow else []
    return pytest.param(piece, id=f"{piece.kind}-{piece.name}", marks=marks)


@pytest.mark.parametrize("piece", [marked(piece) for piece in REGISTRY.pieces])
def test_each_registered_piece_keeps_its_contract(piece, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write where one is
    whole = REGISTRY.find(piece.kind, called(piece))
    try:
        report = check_piece(
            piece.kind, called(piece), options_of(piece, whole, tmp_path), registry=REGISTRY, **tiny(piece).more
        )
    except UserMistake as mistake:
        if any(words in str(mistake) for words in MISSING):
            pytest.skip(str(mistake))
        raise
    assert {*report.passed, *report.left_out} == set(checks_of(piece.kind))
    assert "builds" in report.passed


def test_what_is_stated_of_pieces_is_of_pieces_that_there_are():
    assert TINY.keys() <= {(piece.kind, piece.name) for piece in REGISTRY.pieces}


def rivals(classes: int = 3):
    def utility(batch):
        best = batch.prediction.probabilities().topk(classes, 1).values
        return best[:, -1] - best[:, 0]

    return utility


def twice(acquirer, factor: float = 2.0):
    return lambda batch: factor * acquirer(batch)


PLUGIN_FILE = """\
from alseg import hookimpl


def flat():
    return lambda batch: batch.prediction.entropy()


@hookimpl
def register_acquirers(register):
    register("flat", flat)
"""


def test_a_piece_is_its_factory_or_its_name(tmp_path):
    for report in (
        check_acquirer(rivals),
        check_acquirer(rivals, {"classes": "2"}),
        check_acquirer(lambda: rivals(classes=2), name="rivals"),
        check_piece("acquirer", rivals),
        check_acquirer(twice, {"factor": 3}, around=rivals),
        check_acquirer(twice, around="entropy"),
    ):
        assert report.name in ("rivals", "twice") and len(report.passed) == len(checks_of("acquirer"))
    (tmp_path / "flat.py").write_text(PLUGIN_FILE)
    registry = load_plugins([tmp_path / "flat.py"])
    assert check_acquirer("flat", registry=registry).kind == "acquirer"
    assert check_acquirer("power:flat", {"beta": 2}, registry=registry).name == "power:flat"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: check_acquirer(lambda batch: batch),
            "calls '<lambda>' as the factory that is registered",
        ),
        (
            lambda: check_dataset(tiny_dataset()),
            "or its registered name, not a dataset itself: give a factory, `check_dataset(lambda: it)`",
        ),
        (lambda: check_acquirer(rivals, {"class": 2}), "has no option 'class'"),
        (lambda: check_acquirer(twice), "'twice' modifies another: give around="),
        (lambda: check_acquirer("nothing"), "There is no acquirer 'nothing'"),
        (lambda: check_piece("acquirers", rivals), "There is no kind 'acquirers'; did you mean acquirer"),
        (lambda: check_acquirer(rivals, skip={"device": " "}), "takes a reason"),
        (
            lambda: check_acquirer(rivals, skip={"extreme": "x"}),
            "no check 'extreme' of an acquirer; did you mean extremes",
        ),
        (lambda: check_dataset("camvid"), "The dataset 'camvid' needs 'data': give it in options, {'data': ...}"),
        (lambda: pool_batch(np.ones((1, 2, 3, 3))), "probabilities [B, C, H, W] whose sum over C is 1"),
        (lambda: pool_batch(np.ones((1, 1, 3, 3)), keys=["a", "b"]), "keys and candidates must be theirs"),
        (lambda: tiny_dataset().images("other"), "There is no split other"),
    ],
)
def test_what_is_no_call_of_the_kit_is_told_so(call, words):
    with pytest.raises(UserMistake) as refused:
        call()
    assert words in str(refused.value)


class Curve:
    @hookimpl
    def round_finished(self, record):
        pass


def one_for_all(n_classes):
    return tiny_model(n_classes)


def curve(run):
    return Curve()


WRONG = {
    "a model": (
        lambda: check_model(tiny_model()),
        "check_model takes a factory, which builds a model anew at each call (it is given `classes` beside its "
        "options), or its registered name, not a model itself: give a factory, `check_model(lambda: it)`.",
    ),
    "an oracle": (
        lambda: check_oracle(Asked()),
        "given `images`, `classes`, `seed` and `run` beside its options), or its",
    ),
    "a tracker": (lambda: check_tracker(Curve()), "not a tracker itself: give a factory, `check_tracker(lambda: it)`"),
    "a recipe": (
        lambda: check_recipe({"rounds": 2}),
        "not a recipe itself: give a factory, `check_recipe(lambda: it)`",
    ),
    "a term's model": (lambda: check_term("learning-loss", model=tiny_model()), "give a factory, `model=lambda: it`"),
    "nothing": (lambda: check_selector(None), "not NoneType: give a factory"),
    "a name of its own": (
        lambda: check_model(one_for_all),
        "lacks 'n_classes' (beside its options it is given `classes`",
    ),
    "a near name": (lambda: check_model(one_for_all), ", did you mean classes?"),
    "a tracker's": (lambda: check_tracker(curve), "lacks 'run' (beside its options it is given nothing): give it in"),
    "no mapping": (
        lambda: check_acquirer(rivals, 2),
        "The argument options of check_acquirer takes the piece's options by name, such as {'size': 3}, not 2.",
    ),
    "a third": (lambda: check_acquirer(rivals, {}, True), "takes True by its name only: it is called check_acquirer("),
    "none": (lambda: check_acquirer(), "lacks a factory or a registered name: it is called check_acquirer(FACTORY"),
    "an option": (
        lambda: check_piece("acquirer", rivals, classes=2, top=1),
        "{'top': 1} after the factory; it is called",
    ),
    "what is given": (
        lambda: check_model(tiny_model, {"classes": 3}),
        "'classes' is no option of a model: alseg gives it",
    ),
    "a list": (
        lambda: check_recipe(lambda: {}, skip=["same"]),
        "skip names checks with the reason why each is left out, such as {'same': 'why'}, not ['same']; there are "
        "builds, settings, same.",
    ),
    "unknown checks": (
        lambda: check_model(tiny_model, skip={"xyz": "x"}),
        f"There is no check 'xyz' of a model; there are {', '.join(checks_of('model'))}.",
    ),
    "no modifier": (lambda: check_acquirer(rivals, around="margin"), "'rivals' has no parameter 'acquirer' or"),
    "a modifier's name": (lambda: check_acquirer("power", around=rivals), "'power' modifies another"),
    "no kind": (lambda: check_piece(rivals, "acquirer"), "First comes the kind, such as 'acquirer'"),
    "no registry": (lambda: check_acquirer("margin", registry=[PLUGIN]), "takes what alseg.load_plugins(...) gives"),
    "no number": (
        lambda: check_acquirer(rivals, classes="4"),
        "classes of check_acquirer takes a whole number, at least 2, not '4'",
    ),
    "no class": (
        lambda: check_acquirer(rivals, classes=0),
        "classes of check_acquirer takes a whole number, at least 2, not 0",
    ),
    "one class": (
        lambda: check_selector("topk", classes=1),
        "classes of check_selector takes a whole number, at least 2",
    ),
    "no pixel": (lambda: check_model(tiny_model, size=(64, 0)), "such as (64, 64), at least 1, not (64, 0)"),
    "no image": (lambda: check_dataset(tiny_dataset, most=0), "most of check_dataset takes a whole number, at least 1"),
    "no patience": (
        lambda: check_oracle("ground-truth", patience=float("nan")),
        "patience of check_oracle takes a number of seconds, at least 0, not nan",
    ),
    "a folder in use": (lambda: check_executor(lambda: None, place=ROOT), "takes an empty folder, which"),
    "a flat dataset": (
        lambda: tiny_dataset(height=0),
        "height of tiny_dataset takes a whole number from 16 to 1024, not 0",
    ),
    "a model of nothing": (lambda: tiny_model(0), "classes of tiny_model takes a whole number at least 1, not 0"),
    "another's kind": (
        lambda: check_acquirer(lambda selector: selector, name="odd", around="entropy"),
        "'odd' takes 'selector', and a modifier takes a piece of its own kind alone: one of acquirers has the "
        "parameter 'acquirer' or 'new_acquirer'",
    ),
    "words for probabilities": (lambda: pool_batch("high"), "pool_batch cannot take these probabilities to 'cpu'"),
    "no device": (lambda: pool_batch(device="gpu"), "pool_batch cannot take these probabilities to 'gpu'"),
    "no probability": (lambda: pool_batch(np.ones((0, 1, 3, 3))), "probabilities [B, C, H, W]"),
    "one key twice": (lambda: pool_batch(keys=["a", "a"]), "keys that tell its images apart, not a, a"),
    "plugins twice": (
        lambda: tiny_run("run", plugins="mine.py", registry=REGISTRY),
        "tiny_run takes plugins= or registry=",
    ),
    "no plugin": (lambda: tiny_run("run", plugins="nothing.py"), "There is no plugin file"),
    "no size": (
        lambda: check_model(tiny_model, size=64),
        "takes height and width, such as (64, 64), at least 1, not 64",
    ),
}


class Asked:
    sees_truth = False

    def ask(self, questions):
        pass

    def collect(self):
        pass


@pytest.mark.parametrize("call", WRONG)
def test_a_wrong_call_is_told_in_one_sentence(call):
    give, words = WRONG[call]
    with pytest.raises(UserMistake) as refused:
        give()
    said = str(refused.value)
    assert words in said and said.endswith(".") and "\n" not in said


def failing():
    raise ValueError("no such day")


def picky():
    raise UserMistake("It wants a file.")


def none():
    pass


def unknown_type(size: Sizes = 1):  # noqa: F821
    return rivals()


def takes_a_name(name: str = "x"):
    return rivals()


@pytest.mark.parametrize(
    ("factory", "said"),
    {
        failing: f"its factory raised ValueError: no such day ({__file__}, line ",
        picky: "its factory refused: It wants a file: give options with which it builds here, or mend it",
        none: "it gave nothing: its factory returns None: end the factory by returning the piece",
        unknown_type: "its factory is refused: the type 'Sizes' of an option cannot be found: name 'Sizes' is not",
        takes_a_name: "must not be called 'name', which is the piece's own: change the parameters of its factory",
    }.items(),
)
@pytest.mark.parametrize("kind", GIVEN)
def test_a_factory_that_builds_nothing_fails_a_check(kind, factory, said):
    with pytest.raises(ContractError) as failed:
        check_piece(kind, factory)
    assert said in str(failed.value) and str(failed.value).endswith("(check builds)")


@pytest.mark.parametrize("kind", GIVEN)
def test_a_piece_that_cannot_be_had_here_is_not_called_broken(kind):
    def needy():
        import a_library_that_nobody_has  # noqa: F401

    with pytest.raises(UserMistake, match="needs a library that is not installed: No module named"):
        check_piece(kind, needy)


def test_a_model_that_refuses_one_class_fails_a_check():
    def several(classes):
        if classes < 2:
            raise UserMistake("It tells two classes or more apart.")
        return tiny_model(classes)

    with pytest.raises(ContractError, match=r"refused: It tells two classes or more apart: .* \(check classes\)"):
        check_model(several)


def test_all_that_failed_is_told_together_and_a_check_is_left_out_by_name():
    def broken():
        return lambda batch: -batch.prediction.entropy() / batch.prediction.entropy().sum()

    with pytest.raises(ContractError) as caught:
        check_acquirer(broken)
    error = caught.value
    assert [failure.check for failure in error.failures] == ["uncertainty", "batch-size"]
    lines = str(error).splitlines()
    assert lines[0] == f"acquirer 'broken' fails {len(error.failures)} checks:"
    assert [line.split(":")[0] for line in lines[1:]] == [f"- {failure.check}" for failure in error.failures]
    why = {failure.check: "shown by a test" for failure in error.failures}
    assert check_acquirer(broken, skip=why).left_out == why


@pytest.mark.parametrize("kind", GIVEN)
def test_each_check_has_a_sentence_and_a_line_of_the_page(kind):
    for name, says in checks_of(kind).items():
        assert says.endswith(".") and "\n\n" not in says
        assert f"| `{name}` | {' '.join(says.split())} |" in PAGE, f"docs/testing.md lacks {kind}'s {name}"


def test_the_page_has_no_check_that_there_is_none_of():
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE.partition("## The checks")[2], re.MULTILINE)
    assert len(listed) == sum(len(checks_of(kind)) for kind in GIVEN)


def test_a_report_can_be_kept(tmp_path):
    report = check_selector("topk", registry=REGISTRY)
    assert json.loads(json.dumps(report._asdict()))["kind"] == "selector"


def test_a_model_of_a_factory_of_ones_own():
    assert "inference" in check_model(tiny_model).left_out


GUIDE = (ROOT / "docs" / "guides" / "plugins.md").read_text()
EXAMPLES = dict(re.findall(r'```python title="(\w+\.py)"\n(.+?)```', GUIDE, re.DOTALL))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_guides_examples_keep_their_contracts(name, tmp_path, monkeypatch):
    (tmp_path / name).write_text(EXAMPLES[name])
    monkeypatch.chdir(tmp_path)
    registry = load_plugins([tmp_path / name, PLUGIN], third_party=False)
    own = [piece for piece in registry.pieces if piece.plugin.distribution == str(tmp_path / name)]
    for piece in own:
        around = {"around": {"acquirer": "margin", "oracle": "ground-truth"}[piece.kind]} if piece.is_modifier else {}
        if piece.kind == "dataset":
            continue  # it reads files of its own, which the guide writes and runs
        more = {"uncertainty": False} if piece.kind == "acquirer" else {}
        check_piece(piece.kind, piece.factory, registry=registry, **around, **more)
    assert own or name == "watch.py" or "register_commands" in EXAMPLES[name]


@pytest.mark.parametrize("given", [str, Path, lambda path: [str(path)]])
def test_a_tiny_run_takes_one_plugin_file_as_it_is(given, tmp_path):
    (tmp_path / "flat.py").write_text(PLUGIN_FILE)
    run = tiny_run(tmp_path / "run", plugins=given(tmp_path / "flat.py"), acquirer="flat", rounds=1)
    assert tomllib.loads((run / "run.toml").read_text())["acquirer"]["name"] == "flat"
