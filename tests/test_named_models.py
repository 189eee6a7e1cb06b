"""A model or training term that misbehaves in a run is named, with what it gave and what it must give."""

from __future__ import annotations

import pytest
import torch
from broken_runs import BASE, HEAD, RUN, TINY, line_of, told  # noqa: F401
from torch import nn

from alseg.engine.batches import Batch
from alseg.engine.steps import WARM_UP, Recorded
from alseg.errors import AlsegError
from alseg.store import RunFolder

MODEL = """
class Mine(TinyModel):
    {body}

@hookimpl
def register_models(register):
    register("mine", lambda classes: Mine(classes))
"""
MINE = [*BASE, "--model", "mine", "--acquirer", "margin", "--selector", "topk"]
AT_POINTS = ["-o", "train.decode=points"]
DENSE = ["-o", "train.decode=dense"]


def method(name: str, gives: str, arguments: str = "features") -> str:
    """A method that gives something; `given` is what the tiny model gives."""
    own = f"given = super().{name}({arguments})" if "given" in gives else "pass"
    return f"def {name}(self, {arguments}):\n        {own}\n        return {gives}".replace("self, )", "self)")


def groups(gives: str) -> str:
    return method("parameter_groups", gives, "")


# the class's body, what is said
BEFORE_THE_RUN = {
    method("encode", "images.nothing", "images"): "failed in encode: AttributeError: 'Tensor' object has no attribute",
    method("decode", "1 / 0"): "failed in decode: ZeroDivisionError: division by zero (FILE, line ",
    method("decode", "given[:, 0]"): (
        "gave torch.float32 [1, 16, 16] in decode; it must give float logits [1, 3, h, w], a map for each class"
    ),
    method("decode", "given[:, :2]"): "gave torch.float32 [1, 2, 16, 16] in decode; it must give float logits [1, 3",
    method("decode", "given.argmax(1, True)"): "gave torch.int64 [1, 1, 16, 16] in decode; it must give float logits",
    method("decode", "torch.cat([given, given])"): "gave torch.float32 [2, 3, 16, 16] in decode",
    method("decode", "given[..., :0]"): "gave torch.float32 [1, 3, 16, 0] in decode",
    method("decode", "[given]"): "gave list in decode",
    method("decode", "given.half()"): "gave torch.float16 logits in decode; they must be float32",
    method("decode", "given.to('meta')"): "gave logits on meta in decode; they must stay on cpu, where its parameters",
    method("encode", "(images.sub_(0.5), given)[1]", "images"): "changed its images in place in encode, which others",
    method("decode", "given / 0 * 0"): "gave logits that are not finite, of which no probability comes: look for a div",
    groups("1 / 0"): "failed in parameter_groups: ZeroDivisionError",
    groups("list(given)"): "gave list in parameter_groups; it must give a dict of lists",
    groups("{'backbone': [], 'decoder': given['decoder']}"): (
        "has 'backbone', 'decoder' as its parameter_groups; they must be \"encoder\" (what is pretrained) and"
    ),
    groups("{'encoder': given['encoder']}"): "has 'encoder' as its parameter_groups; they must be",
    groups("{}"): "has nothing as its parameter_groups",
    groups("{**given, 'decoder': []}"): 'has no parameter in the group "decoder"',
    groups("{**given, 'decoder': [*given['decoder'], nn.Parameter(torch.zeros(3, 2))]}"): (
        "gave a parameter [3, 2] in the group 'decoder', number 4, that is not its own: register what it is of"
    ),
    groups("{'decoder': given['decoder']}"): (
        "leaves the parameter 'first.weight' and 3 more out of its parameter_groups, which would never be trained: put"
    ),
    groups("{**given, 'decoder': given['decoder'][1:]}"): "leaves the parameter 'norm.weight' out of its parameter_gr",
    groups("{**given, 'encoder': [*given['encoder'], self.norm.weight]}"): "gave a parameter [8] twice in its groups",
    groups("{**given, 'decoder': list(self.parameters())}"): "gave a parameter [8, 3, 3, 3] twice in its groups",
    groups(
        "{**given, 'decoder': [self.norm]}"
    ): "gave BatchNorm2d in the group 'decoder'; each must be an nn.Parameter",
    method("get_extra_state", "{'seen': 3}", ""): (
        "has dict as '_extra_state' in its state_dict, which safetensors does not store: keep it in a parameter or"
    ),
    "origin = 'imagenet'": "has str as its origin; it must be a mapping of names to text, numbers and truth values",
    "origin = {1: 2}": "has int under 1 in its origin",
    "origin = {'a': torch.ones(2)}": "has torch.float32 [2] under 'a' in its origin",
    "origin = property(lambda self: 1 / 0)": "failed in origin: ZeroDivisionError",
    method("for_inference", "None", "precision"): "gave NoneType in for_inference; it must give a model",
    method("for_inference", "1 / 0", "precision"): "failed in for_inference: ZeroDivisionError",
}


@pytest.mark.parametrize("body", BEFORE_THE_RUN)
def test_a_model_is_named_before_the_run(told, tmp_path, body):  # noqa: F811
    said = told(MODEL.format(body=body), *MINE, "--rounds", 1)
    assert f"The model 'mine' of FILE {BEFORE_THE_RUN[body]}" in said
    assert not (tmp_path / "run").exists()


def test_an_origin_may_hold_a_path(cli, tmp_path):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(HEAD + MODEL.format(body="origin = {'weights': __import__('pathlib').Path('x'), 'step': 3}"))
    outcome = cli(*TINY, "--plugin", file, *MINE, "--rounds", 1, "--out", run)
    assert outcome.code == 0, outcome.err
    assert RunFolder(run).settings()["record"]["weights"] == {"weights": "x", "step": 3}


def test_a_frozen_parameter_may_be_left_out(cli, tmp_path):
    file = tmp_path / "mine.py"
    frozen = groups("(self.first.requires_grad_(False), {**given, 'encoder': self.second.parameters()})[1]")
    file.write_text(HEAD + MODEL.format(body=frozen))
    outcome = cli(*TINY, "--plugin", file, *MINE, "--rounds", 1, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def in_training(name: str, gives: str, arguments: str = "features") -> str:
    """A method that gives something in training mode only, of more than one image."""
    return method(name, f"({gives}) if self.training else given", arguments)


LATER = {
    in_training("decode", "1 / 0 + given"): (DENSE, "failed in decode: ZeroDivisionError"),
    in_training("decode", "given[:1]"): (DENSE, "gave torch.float32 [1, 3, 16, 16] in decode; it must give float"),
    in_training("decode", "given.detach()"): (
        DENSE,
        "cannot be trained, no gradient comes out of it: leave out detach",
    ),
    in_training("decode_at", "given.mT", "features, points"): (
        AT_POINTS,
        "gave torch.float32 [2, 2, 3] in decode_at for 2 points of 2 images; it must give float logits [2, 3, 2]",
    ),
    in_training("decode_at", "given[:, :2]", "features, points"): (
        AT_POINTS,
        "gave torch.float32 [2, 2, 2] in decode_",
    ),
    in_training("decode_at", "given.double()", "features, points"): (AT_POINTS, "gave torch.float64 logits in decod"),
    in_training("decode_at", "1 / 0 + given", "features, points"): (AT_POINTS, "failed in decode_at: ZeroDivisionErr"),
    method("decode_sampled", "self.decode_at(features, points)[:1]", "features, points"): (
        DENSE,
        "gave torch.float32 [1, 3, 2] in decode_sampled for 2 points of 2 images",
    ),
    in_training("decode", "given + torch.nan"): (
        DENSE,
        "has a loss of nan before its first step in round 0: its logits must be finite; look at its weights",
    ),
    # the backward pass of the encoder needs what this writes into
    in_training("decode", "(features.relu_(), given)[1] * 1"): (
        DENSE,
        "failed in the backward pass: RuntimeError: one of the variables needed for gradient computation has been mod",
    ),
}


@pytest.mark.parametrize("body", LATER)
def test_a_model_is_named_in_training(told, body):  # noqa: F811
    words, said = LATER[body]
    assert f"The model 'mine' of FILE {said}" in told(MODEL.format(body=body), *MINE, "--rounds", 1, *words)


SPOILT = """
class Mine(TinyModel):
    calls = 0

    def decode(self, features):
        if not self.training:
            Mine.calls += 1
        return super().decode(features) * (torch.nan if not self.training and Mine.calls > {calls} else 1)

@hookimpl
def register_models(register):
    register("mine", lambda classes: Mine(classes))
"""


# the rehearsal's image is the first that is seen, evaluation's the second; then the pool's
@pytest.mark.parametrize(("calls", "acquirer"), [(1, "margin"), (2, "margin"), (2, "random"), (0, "random")])
def test_a_model_that_gives_nan_is_named_and_no_acquirer(told, calls, acquirer):  # noqa: F811
    words = [*MINE, "--rounds", 2, "--acquirer", acquirer]
    said = told(SPOILT.format(calls=calls), *words)
    assert "The model 'mine' of FILE gave logits that are not finite" in said


def test_a_prediction_of_nan_is_no_mask(cli, tmp_path):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(HEAD + SPOILT.format(calls=10**9))
    assert cli(*TINY, "--plugin", file, *MINE, "--rounds", 1, "--out", run).code == 0
    file.write_text(HEAD + SPOILT.format(calls=-1))
    from alseg.testing import write_tiny_dataset

    images = write_tiny_dataset(tmp_path / "images") / "val"
    outcome = cli(*TINY, "--plugin", file, "predict", run, images, "--out", tmp_path / "out")
    assert outcome.code == 1, outcome.err
    assert f"The model 'mine' of {file} gave logits that are not finite" in outcome.err


OUTSIDE = {
    "torch.OutOfMemoryError('full')": (1, "There is not enough memory to train at 64x64 in batches of 2"),
    "RuntimeError('CUDA error: out of memory')": (1, "There is not enough memory to train at 64x64 in batches of 2"),
    "torch.distributed.DistNetworkError('lost')": (1, "Another process of this run has ended or cannot be reached: "),
    "KeyboardInterrupt": (130, "Interrupted; `alseg --plugin "),
}


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("error", OUTSIDE)
def test_what_comes_from_outside_is_no_models_fault(cli, tmp_path, error, where):
    file, (code, words) = tmp_path / "mine.py", OUTSIDE[error]
    after = {"forward": "self.fails()", "backward": "(given.register_hook(self.fails), given)[1]"}[where]
    body = in_training("decode", after) + f"\n\n    def fails(self, gradient=None):\n        raise {error}"
    file.write_text(HEAD + MODEL.format(body=body))
    outcome = cli(*TINY, "--plugin", file, *MINE, "--rounds", 1, *DENSE, "--out", tmp_path / "run")
    assert outcome.code == code
    assert outcome.err.startswith(f"alseg: {words}")
    assert "model 'mine'" not in outcome.err


class CannotRecord:
    """A recorder of which a recording fails, as by what a step does on the host."""

    def warm_up(self, work, last):
        return work()

    def record(self, work):
        return work(), lambda: None


@pytest.mark.parametrize("cause", [RuntimeError("looked up"), ValueError("no such key")])
def test_a_step_that_cannot_be_recorded_is_done_plainly_whoever_is_named(cause):
    said, calls = list[str](), list[int]()

    def plain(batch):
        calls.append(1)
        if len(calls) == WARM_UP + 1:
            raise AlsegError("The model 'x' of y failed in encode.") from cause
        return torch.zeros(())

    steps = Recorded(plain, nn.Linear(1, 1).parameters(), 0, CannotRecord(), said.append)
    batch = Batch(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 2), torch.zeros(1, 1).long())
    for _ in range(WARM_UP):
        steps(batch)
    if isinstance(cause, RuntimeError):
        assert steps(batch) == 0
        assert said == ["The training steps are not recorded as a CUDA graph: looked up"]
    else:
        with pytest.raises(AlsegError, match="The model 'x' of y"):
            steps(batch)


TERM = """
class Mine(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def loss(self, model, taught):
        {loss}

    {more}

@hookimpl
def register_terms(register):
    register("mine", lambda model: Mine(model))
"""
ASKS = """
@hookimpl
def register_acquirers(register):
    register("asks", lambda: lambda batch: batch.prediction.term("mine"))
"""
SOUND = "return self.weight * taught.losses.mean()"
TERMS = [*RUN, "-o", "terms=mine"]

# what the loss does, what else the term has, what is said
WRONG_TERMS = {
    "raises": ("1 / 0", "", "failed in loss: ZeroDivisionError: division by zero (FILE, line "),
    "nothing": ("pass", "", "gave NoneType as its loss; it must give a float scalar, such as by .mean()"),
    "a number": ("return 0.5", "", "gave float as its loss; it must give a float scalar"),
    "no scalar": ("return taught.losses * self.weight", "", "gave torch.float32 [2, 2] as its loss; it must give"),
    "whole": ("return torch.zeros((), dtype=torch.int64)", "", "gave torch.int64 [] as its loss"),
    "elsewhere": ("return torch.zeros((), device='meta')", "", "gave a loss on meta; it must stay on cpu"),
    "NaN": (
        "return self.weight * torch.nan",
        "",
        "gave a loss of nan in step 1 of epoch 1 of round 0, where the labels' own was finite: look for a division",
    ),
    "NaN later": (
        "return self.weight * (1 if self.done < 0.5 else torch.inf)",
        "done = 0\n    def after_step(self, model, done):\n        self.done = done",
        "gave a loss of inf in step 1 of epoch 2 of round 0",
    ),
    "after": (SOUND, "def after_step(self, model, done):\n        1 / 0", "failed in after_step: ZeroDivisionError"),
    "parameters": (SOUND, "def parameters(self, recurse=True):\n        1 / 0", "failed in parameters: ZeroDivision"),
    "no parameters": (SOUND, "def parameters(self, recurse=True):\n        return [3]", "gave int in parameters; each"),
    "no gradient": (
        "return (self.weight / 4).detach()",
        "def after_step(self, model, done):\n        1 / 0",
        "gave a loss of 0.25 without gradient in the first step, so that its 1 numbers learn nothing: leave out detach",
    ),
    "no gradient ever": (
        "return torch.zeros(())",
        "",
        "gave a loss without gradient in every step, so that its 1 numbers learn nothing: leave out detach",
    ),
    "no loss": (SOUND, "loss = 3", "is no nn.Module with a loss"),
}


@pytest.mark.parametrize("case", WRONG_TERMS)
def test_a_term_is_named(told, case):  # noqa: F811
    loss, more, words = WRONG_TERMS[case]
    text = TERM.format(loss=loss, more=more)
    said = told(text, *TERMS)
    assert f"The term 'mine' of FILE {words}" in said
    if case == "raises":
        assert f"line {line_of(text, '1 / 0')})" in said


def test_a_term_may_begin_with_nothing_to_learn(cli, tmp_path):
    later = "return self.weight * taught.losses.mean() if self.done > 0.5 else torch.zeros(())"
    after = "done = 0\n    def after_step(self, model, done):\n        self.done = done"
    (tmp_path / "mine.py").write_text(HEAD + TERM.format(loss=later, more=after))
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *TERMS, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def test_a_training_that_diverges_names_its_terms_as_what_could_be_left_out(told):  # noqa: F811
    text = TERM.format(loss=SOUND, more="")
    said = told(
        text, *TERMS, "-o", "train.learning_rate=1000", "-o", "train.optimizer=sgd", "-o", "train.epochs=9", code=2
    )
    assert "The training of round 0 diverged in epoch " in said
    assert "a lower train.learning_rate, or without the term 'mine' of FILE." in said


def test_what_a_term_sees_has_its_shape(told):  # noqa: F811
    text = TERM.format(loss=SOUND, more="def seen(self, features):\n        return features") + ASKS
    said = told(text, *TERMS, "--acquirer", "asks", "--rounds", 2)
    assert (
        "The term 'mine' of FILE gave torch.float32 [1, 8, 16, 16] in seen; it must give a float tensor [1, 1, h, w"
        in said
    )
