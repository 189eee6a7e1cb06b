"""What a run must not swallow: divergence, wrong answers, memory that runs out, settings that get lost."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from test_plugins import ACQUIRER, RUN, said_once
from test_run import camvid_run, fingerprint

from alseg.engine.acquire import _keep_best, within_budget
from alseg.engine.device import in_smaller_batches, out_of_memory
from alseg.engine.images import MOST, batches_of_one_size
from alseg.errors import AlsegError, UserMistake
from alseg.values import Question
from alseg_pixelpick.encoders import Encoder
from alseg_pixelpick.weights import refused


def test_a_training_that_diverges_is_said_and_not_scored(cli, camvid, tmp_path):
    run, fast = (
        tmp_path / "run",
        ("-o", "train.optimizer=sgd", "-o", "train.learning_rate=1000", "-o", "train.epochs=30"),
    )
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, *SMALL, *fast, "--rounds", 1, "--out", run)
    assert outcome.code == 2
    assert "diverged in epoch" in outcome.err and "train.learning_rate" in outcome.err
    assert not (run / "rounds.jsonl").exists()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_utility_that_is_no_number_is_refused(cli, plugin, tmp_path, value):
    path = plugin(ACQUIRER + f"def mine(): return lambda batch: batch.candidates.double() * float('{value}')\n")
    outcome = cli("--plugin", path, *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    said_once(outcome, "mine", "train-000", "finite")
    assert not (tmp_path / "run").exists(), "it is found before anything is trained"


ORACLE = """
from alseg import Answer, Answers, hookimpl
from pathlib import Path

class Wrong:
    sees_truth = False
    def ask(self, questions): self.questions = questions
    def collect(self):
        name = "Sky" if Path({flag!r}).exists() else "sky"
        return Answers([Answer(q.item, name, "me") for q in self.questions], True)

@hookimpl
def register_oracles(register):
    register("wrong", Wrong)
"""


def test_an_answer_that_is_no_class_is_refused_and_the_run_goes_on_later(cli, plugin, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    path = plugin(ORACLE.format(flag=str(flag)))
    outcome = cli("--plugin", path, *RUN, "--oracle", "wrong", "--out", tmp_path / "run")
    *_, sentence, last = outcome.err.splitlines()
    assert outcome.code == 1
    assert all(word in sentence for word in ("wrong", "'Sky'", "sky")), sentence
    flag.unlink()
    command = re.fullmatch("alseg: `alseg (.*)` goes on from the last phase.", last)[1]
    assert cli(*shlex.split(command)).code == 0


def test_settings_that_are_none_stay_so(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "-o", "query.size=none", "--rounds", 1)
    settings = tomllib.loads((tmp_path / "run/run.toml").read_text())
    assert settings["query"]["size"] == "none"
    outcome = cli("run", "--config", tmp_path / "run/run.toml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome.err
    assert fingerprint(tmp_path / "again") == fingerprint(tmp_path / "run")
    assert cli("resume", tmp_path / "run", "--rounds", 2).code == 0


def test_another_piece_leaves_the_first_ones_options_behind(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "-o", "selector.top=0.1", "--rounds", 1)
    outcome = cli("run", "--config", tmp_path / "run/run.toml", "--selector", "uniform", "--out", tmp_path / "other")
    assert outcome.code == 0, outcome.err
    assert tomllib.loads((tmp_path / "other/run.toml").read_text())["selector"] == {"name": "uniform"}
    outcome = cli("run", "--selector", "uniform", "-o", "selector.top=0.1", "--out", tmp_path / "wrong")
    assert outcome.code == 2 and "no option 'top'" in outcome.err


def test_a_size_takes_the_place_of_the_recipes_other_sizes(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--recipe", "voc12", "--rounds", 1)
    settings = tomllib.loads((tmp_path / "run/run.toml").read_text())
    assert settings["train"]["size"] == settings["query"]["size"] == "64x64"
    assert settings["train"]["resize"] == settings["evaluate"]["size"] == "none"


DATASET = """
import numpy as np
from alseg import Classes, hookimpl

class Images:
    def __len__(self): return 3
    def key(self, i): return str(i)
    def image(self, i): return np.full((32, 32, 3), 40 * i, np.uint8)
    def mask(self, i): return np.zeros((32, 32), np.uint8)

class Mine:
    classes, splits, recipe = Classes(("unlabelled", "a"), 0), ("train",), "default"
    def images(self, split): return Images()

@hookimpl
def register_datasets(register):
    register("mine", Mine)
"""


def test_void_that_is_a_class_is_refused(cli, plugin, tmp_path):
    outcome = cli("--plugin", plugin(DATASET), "run", "--dataset", "mine", *SMALL, "--out", tmp_path / "run")
    said_once(outcome, "void is 0", "unlabelled")


def test_an_option_must_not_be_called_name(cli, plugin, tmp_path):
    path = plugin(ACQUIRER + "def mine(name: str = 'x'): return lambda batch: batch.candidates.float()\n")
    said_once(cli("--plugin", path, *RUN, "--acquirer", "mine", "--out", tmp_path / "run"), "mine", "'name'")


def test_a_finished_run_needs_no_data_and_gets_its_figures(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1, "-o", "report=true")
    for figure in (tmp_path / "run/figures").iterdir():
        figure.unlink()
    (tmp_path / "run/figures").rmdir()
    camvid.rename(tmp_path / "moved")
    assert cli("resume", tmp_path / "run").code == 0
    assert (tmp_path / "run/figures/learning-curve.png").exists()


def test_what_a_plugin_prints_does_not_spoil_the_json(cli, plugin, tmp_path):
    path = plugin("from alseg import hookimpl\n\n@hookimpl\ndef round_finished(record): print('hello')\n")
    outcome = cli("--plugin", path, *RUN, "--out", tmp_path / "run", "--json")
    assert len(json.loads(outcome.out)["rounds"]) == 2
    assert "hello" in outcome.err


class Payload:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_code_in_a_weights_file_is_run(tmp_path):
    payload = Payload()
    payload.path = tmp_path / "ran"
    for name in ("weights.pth", "weights.bin"):
        (tmp_path / name).write_bytes(pickle.dumps({"state_dict": payload}, protocol=2))
        torch.save({"state_dict": payload}, tmp_path / f"new-{name}")
        for file in (tmp_path / name, tmp_path / f"new-{name}"):
            with pytest.raises(UserMistake, match="neither safetensors nor"):
                Encoder("test_resnet.r160_in1k", str(file), 16)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("lost", ["weight", "running_mean", "running_var"])
def test_a_weights_file_without_its_norms_is_refused(tmp_path, lost):
    import timm
    from safetensors.torch import save_file

    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    kept = {key: value for key, value in state.items() if not ("bn" in key and key.endswith(lost))}
    save_file(kept, tmp_path / "weights.safetensors")
    with pytest.raises(UserMistake, match=r"they lack .*bn"):
        Encoder("test_resnet", str(tmp_path / "weights.safetensors"), 16)
    save_file(state, tmp_path / "whole.safetensors")
    Encoder("test_resnet", str(tmp_path / "whole.safetensors"), 16)


def test_weights_of_another_encoder_are_told_by_what_does_not_fit(tmp_path):
    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("mobilenetv2_050", pretrained=False).state_dict(), tmp_path / "other.safetensors")
    words = r"their bn1.weight is of shape \[16\], the encoder's of \[32\], and so on with \d+ more\.$"
    with pytest.raises(UserMistake, match=words):
        Encoder("test_resnet", str(tmp_path / "other.safetensors"), 16)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (("0.bias", "1.weight", "2"), "they lack 0.weight and 1 more tensor."),
        (("0.weight", "0.bias", "1.weight", "1.bias", "2"), "the encoder has no 2."),
    ],
)
def test_tensors_that_a_file_lacks_or_has_too_many_are_named(stored, words):
    body = torch.nn.Sequential(torch.nn.BatchNorm1d(2, track_running_stats=False), torch.nn.Linear(2, 2))
    with pytest.raises(RuntimeError) as caught:
        body.load_state_dict({key: body.state_dict().get(key, torch.ones(1)) for key in stored})
    assert str(refused("mine", "FILE", caught.value)) == f"The weights FILE do not fit the encoder 'mine': {words}"


def test_a_batch_that_is_too_large_for_the_memory_is_halved_and_said():
    said, tried = [], []

    def work(batch_size: int) -> int:
        tried.append(batch_size)
        if batch_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch_size

    assert in_smaller_batches(work, 9, "choosing pixels", said.append) == 2
    assert tried == [9, 4, 2]
    assert len(said) == 2 and "choosing pixels of 2" in said[1]

    def never(batch_size: int) -> int:
        raise torch.OutOfMemoryError

    with pytest.raises(AlsegError, match="not enough memory for choosing pixels"):
        in_smaller_batches(never, 4, "choosing pixels", said.append)
    with pytest.raises(RuntimeError, match="something else"):
        in_smaller_batches(lambda batch_size: raising("something else"), 4, "x", said.append)
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))


def raising(words: str) -> int:
    raise RuntimeError(words)


def test_memory_that_runs_out_in_an_acquirer_makes_batches_smaller(cli, plugin, tmp_path):
    text = "import torch\n" + ACQUIRER + "def mine():\n    def utility(batch):\n"
    text += "        if len(batch.keys) > 2: raise torch.OutOfMemoryError('CUDA out of memory')\n"
    text += "        return batch.prediction.entropy()\n    return utility\n"
    outcome = cli("--plugin", plugin(text), *RUN, "--acquirer", "mine", "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err
    assert "choosing pixels in batches of 2" in outcome.err


def test_memory_that_runs_out_in_training_is_said(cli, camvid, tmp_path, monkeypatch):
    def full(*words, **more):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("alseg.training.train", full)
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, *SMALL, "--out", tmp_path / "run")
    assert outcome.code == 1
    assert "64x64 in batches of 4" in outcome.err


@given(
    sizes=st.lists(st.sampled_from([(10, 10), (3000, 4000), (720, 960)]), max_size=20),
    batch_size=st.integers(1, 8),
    classes=st.integers(1, 30),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_batches_hold_each_image_once_and_fit(sizes, batch_size, classes, device):
    batches = batches_of_one_size(sizes, batch_size, classes, device)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len({sizes[i] for i in batch}) == 1
        height, width = sizes[batch[0]]
        assert len(batch) <= batch_size
        assert len(batch) == 1 or len(batch) * classes * height * width <= MOST[device]


@given(
    images=st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=12),
    most=st.integers(1, 10),
)
def test_proposals_let_go_early_are_none_that_would_have_been_asked(images, most):
    everything = [[(float(p), Question("", str(i), 0, x)) for x, p in enumerate(row)] for i, row in enumerate(images)]
    asked: dict[int, list[tuple[float, Question]]] = {}
    for i, proposals in enumerate(everything):
        asked[i] = proposals
        _keep_best(asked, most)
    assert within_budget([asked[i] for i in sorted(asked)], most) == within_budget(everything, most)


def test_a_plugin_flag_without_a_file(cli):
    outcome = cli("run", "--plugin")
    assert outcome.code == 2
    assert "--plugin FILE" in outcome.err


def test_a_pool_budget_has_a_cap_of_four_even_shares(cli, camvid, tmp_path):
    words = ("run", "--dataset", "camvid", "--data", camvid, *SMALL, "--pool-pixels-per-round", 12, "--rounds", 2)
    assert cli(*words, "--out", tmp_path / "run").code == 0
    for questions in (tmp_path / "run").rglob("questions.jsonl"):
        images = [json.loads(line)["image"] for line in questions.read_text().splitlines()]
        assert len(images) == 12
        assert max(images.count(image) for image in images) <= 8


def test_where_the_temporary_files_of_a_killed_run_go(cli, camvid, tmp_path):
    camvid_run(cli, camvid, tmp_path / "run", "--rounds", 1)
    stale = tmp_path / "run/rounds/00/.model.safetensors.abcd.tmp"
    stale.write_bytes(b"half")
    os.utime(stale, (0, 0))
    fresh = tmp_path / "run/.report.html.abcd.tmp"  # somebody may be writing it
    fresh.write_bytes(b"half")
    assert cli("resume", tmp_path / "run", "--rounds", 2).code == 0
    assert not stale.exists()
    assert fresh.exists()


def test_two_runs_without_a_name_take_two(cli, camvid, tmp_path, monkeypatch):
    """The name that is free is taken by another at the last moment."""
    monkeypatch.chdir(tmp_path)
    from alseg.store import RunFolder

    create, taken = RunFolder.create.__func__, []

    def late(cls, path: Path, *rest):
        if not taken:
            taken.append(path)
            create(cls, path, *rest)
        return create(cls, path, *rest)

    monkeypatch.setattr(RunFolder, "create", classmethod(late))
    outcome = cli("run", "--dataset", "camvid", "--data", camvid, *SMALL, "--rounds", 1)
    assert outcome.code == 0, outcome.err
    assert {path.name for path in Path("runs").iterdir()} == {taken[0].name, f"{taken[0].name}-2"}
