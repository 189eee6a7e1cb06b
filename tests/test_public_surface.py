"""What plugins may rely on: alseg's names, and what factories are given."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import get_type_hints

import pytest

import alseg
from alseg.pieces import GIVEN
from alseg.scaffold import KINDS


def test_the_public_surface():
    """What plugins and scripts may rely on: a change here is one for CHANGELOG's section for plugin authors."""
    assert sorted(alseg.__all__) == SURFACE
    for name in SURFACE:
        assert getattr(alseg, name) is not None
    assert set(dir(alseg)) == {*SURFACE, "__version__"}


SURFACE = [
    *(
        "API_VERSION",
        "Acquirer",
        "AlsegError",
        "Answer",
        "Answers",
        "Between",
        "Classes",
        "Dataset",
        "Images",
        "Longer",
    ),
    *("Model", "Oracle", "PixelLabel", "PixelLabels", "PoolBatch", "Prediction", "Question", "Registry"),
    *("Segmentation", "Segmenter", "Selection", "Selector", "Size", "Taught", "Term", "UserMistake", "Waiting"),
    *(
        "export_labels",
        "file_stamp",
        "highest",
        "hookimpl",
        "import_labels",
        "load_plugins",
        "pick",
        "predict",
        "resume",
        "run",
    ),
]


# what an executor of one's own needs besides
MODULES = {
    "alseg.compare.jobs": ["Executor", "Job", "Watch", "carry_out", "log_of"],
    "alseg.compare.worker": ["error_of", "printing_to"],
}


@pytest.mark.parametrize("module", MODULES)
def test_the_public_surface_of_modules_is_documented(module):
    public = importlib.import_module(module)
    assert sorted(public.__all__) == MODULES[module]
    reference = Path(__file__).parent.parent / "docs" / "reference"
    pages = "".join((reference / name).read_text() for name in ("python.md", "protocols.md"))
    for name in public.__all__:
        assert getattr(public, name) is not None
        assert f"# {name}\n" in pages, name


GIVEN_TYPES = """\
from alseg import hookimpl
from alseg.testing.tiny import tiny_model
from torch import nn

told = {}

class Term(nn.Module):
    def loss(self, model, taught):
        return taught.logits.sum() * 0

def model(classes: int):
    told["model"] = {"classes": classes}
    return tiny_model(classes)

def term(model, classes):
    told["term"] = {"model": model, "classes": classes}
    return Term()

class Oracle:
    sees_truth = False
    def __init__(self, **given):
        told["oracle"] = given
        self.name = given["classes"].names[0]
    def ask(self, questions):
        self.items = [question.item for question in questions]
    def collect(self):
        from alseg import Answer, Answers
        return Answers([Answer(item, self.name, "x") for item in self.items], True)

def oracle(images, classes, seed, run):
    return Oracle(images=images, classes=classes, seed=seed, run=run)

@hookimpl
def register_models(register):
    register("told-model", model)

@hookimpl
def register_terms(register):
    register("told-term", term)

@hookimpl
def register_oracles(register):
    register("told-oracle", oracle)
"""


def test_what_factories_are_given_is_what_the_reference_says(tmp_path):
    """Their names, and types as the protocols have them."""
    from alseg.given import FACTORIES
    from alseg.testing import tiny_run
    from alseg.testing.tiny_runs import tiny_registry

    declared = {kind: get_type_hints(given) for kind, given in FACTORIES.items()}
    assert {kind: tuple(types) for kind, types in declared.items()} == {k: given for k, given in GIVEN.items() if given}
    (tmp_path / "told.py").write_text(GIVEN_TYPES)
    registry = tiny_registry([tmp_path / "told.py"])
    tiny_run(
        tmp_path / "run",
        registry=registry,
        model="told-model",
        oracle="told-oracle",
        terms="told-term",
        rounds=1,
        first_pixels=1,
        train__epochs=1,
    )
    told = registry.find("model", "told-model").factory.__globals__["told"]
    assert {kind: set(given) for kind, given in told.items()} == {k: set(types) for k, types in declared.items()}
    for kind, types in declared.items():
        for name, kept_to in types.items():
            assert isinstance(told[kind][name], kept_to), f"{kind}: {name}"


def test_every_kind_that_can_be_registered_can_be_begun():
    assert set(KINDS) == {*GIVEN, "modifier", "command", "hooks"}
