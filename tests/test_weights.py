"""What is stored of a model: every weight once for each of its names; what cannot be stored is refused at once."""

from __future__ import annotations

import pytest
import torch
from broken_runs import BASE, HEAD, RUN, TINY, told  # noqa: F401
from torch import nn

import alseg
from alseg.testing import check_model
from alseg.testing.tiny_models import TinyModel

MODEL = """
class Mine(TinyModel):
    def __init__(self, classes):
        super().__init__(classes)
        {more}

@hookimpl
def register_models(register):
    register("mine", Mine)
"""
TWICE = "self.both, self.view = nn.Sequential(self.first, self.second), nn.Buffer(self.norm.running_var[2:])"
TERM = """
class Lazy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.layer = nn.LazyConv2d(1, 1)

    def loss(self, model, taught):
        return self.layer(taught.features).mean()

@hookimpl
def register_terms(register):
    register("lazy", Lazy)
"""
MINE = [*BASE, "--model", "mine", "--acquirer", "margin", "--selector", "topk"]


class Twice(TinyModel):
    def __init__(self, classes):
        super().__init__(classes)
        self.both = nn.Sequential(self.first, self.second)


def test_a_model_may_have_a_layer_in_two_places():
    assert "state-dict" in check_model(Twice).passed


def test_a_layer_in_two_places_is_stored_and_had_again(cli, tmp_path):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(HEAD + MODEL.format(more=TWICE))
    plugins = (*TINY, "--plugin", file)
    outcome = cli(*plugins, *MINE, "--rounds", 1, "--out", run)
    assert outcome.code == 0, outcome.err
    model = alseg.Segmenter(run, registry=alseg.load_plugins([plugins[1], file])).model
    assert model.both[0].weight is model.first.weight
    assert torch.equal(model.view, model.norm.running_var[2:])
    assert cli(*plugins, "resume", run, "--rounds", 2).code == 0
    assert len(alseg.resume(run, registry=alseg.load_plugins([plugins[1], file])).rounds) == 2


@pytest.mark.parametrize(
    ("text", "words", "kind"),
    [
        (MODEL.format(more="self.classifier = nn.LazyConv2d(classes, 1)"), MINE, "model 'mine'"),
        (TERM, [*RUN, "-o", "terms=lazy"], "term 'lazy'"),
    ],
)
def test_a_lazy_layer_is_refused_before_the_run(told, tmp_path, text, words, kind):  # noqa: F811
    said = told(text, *words)
    assert f"The {kind} of FILE has '" in said
    assert "' of a lazy layer, which has no shape yet: give its number of inputs." in said
    assert not (tmp_path / "run").exists()
