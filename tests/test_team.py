"""One run on several processes, by torchrun with gloo."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bands import Bands, source_of
from conftest import SMALL, one_sentence, write_camvid

from alseg.cli import app
from alseg.engine.batches import batch_plan
from alseg.engine.team import ALONE, Team, join
from alseg.errors import Interrupted, Unreachable, UserMistake
from alseg.settings import Augmentation
from alseg.store import RunFolder

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

# A toy without batch norms, so that two halves of a batch are the batch.
GRADIENTS = """
import torch
from alseg.engine.batches import PADDING, Batch
from alseg.engine.team import join
from alseg.engine.train import _Loss, point_loss

class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 4, 3, padding=1)
    def encode(self, images):
        return self.layer(images)
    def decode(self, features):
        return features

team, toy, alone = join(), Toy(), Toy()
torch.manual_seed(1)
images, points = torch.rand(5, 3, 8, 8), torch.rand(5, 6, 2)
classes = torch.randint(0, 4, (5, 6))
classes[0, 2:] = PADDING  # the shares have 14 and 12 labels
part = slice(team.rank, None, 2)
loss_of = team.wrapped(_Loss(toy, False), torch.device("cpu"))
error = loss_of(images[part], points[part], classes[part])
known = (classes[part] != PADDING).sum().float()
(error * known * team.size / team.total(known.clone())).backward()
point_loss(alone, Batch(images, points, classes), False).backward()
torch.testing.assert_close(toy.layer.weight.grad, alone.layer.weight.grad)
assert team.gathered([team.rank, "ä" * team.rank]) == [[0, ""], [1, "ä"]]
one = torch.full((2,), float(team.rank))
team.mean([one])
assert one.tolist() == [0.5, 0.5]
with torch.no_grad():
    toy.layer.bias.fill_(team.rank + 7)
team.equal(toy)
assert (toy.layer.bias == 7).all()
del loss_of, error  # the group outlives none of its graphs
"""

# Ten images in batches of five, of which two processes have three and two.
COUNTS = """
import torch
from bands import CPU, Bands, source_of
from test_training import Toy
from alseg.engine.team import join
from alseg.engine.train import train
from alseg.settings import TrainSettings

team, images, seen = join(), Bands(10), []
source = source_of(images, images.labels(2), batch_size=5, team=team)
train(
    Toy(), source, TrainSettings(epochs=2, workers=0), seed=0, round=0, device=CPU, precision=torch.float32, team=team,
    advance=lambda images, loss: seen.append(images),
)
assert source.images_per_epoch == 10
assert sum(seen) == 20, seen
"""

# Which of two processes dies in the middle of a training, and what the other says.
DIES = """
import os
from bands import CPU, Bands, source_of
from test_training import Toy
import torch
from alseg.engine.calls import tell
from alseg.engine.team import join
from alseg.engine.train import train
from alseg.errors import AlsegError
from alseg.settings import TrainSettings

class Dies(Toy):
    calls = 0
    def encode(self, images):
        self.calls += 1
        features = super().encode(images)
        if team.rank == 1 and self.calls == 3:  # while the other waits in its backward pass
            features.register_hook(lambda gradient: os._exit(0))
        return features

team, model, images = join(), Dies(), Bands(8)
tell(model, "The model 'mine' of me", 3)
settings = TrainSettings(epochs=4, workers=0, decode="dense")
source = source_of(images, images.labels(2))
try:
    train(model, source, settings, seed=0, round=0, device=CPU, precision=torch.float32, team=team)
except AlsegError as error:
    print(error, flush=True)
os._exit(7)  # without the group, which cannot be left in order
"""


@pytest.mark.slow
def test_a_process_that_died_is_no_fault_of_the_others_model(tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    team = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # not by torchrun, which would end the other one
    members = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "dies.py")],
            env={**os.environ, **team, "RANK": str(rank), "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [member.communicate(timeout=120)[0] for member in members]
    assert [member.returncode for member in members] == [7, 0]
    assert said[0].startswith("Another process of this run has ended or cannot be reached: ")


def test_a_process_alone_is_its_own_team(monkeypatch):
    assert join() is ALONE and ALONE.leads and ALONE.size == 1
    monkeypatch.setenv("RANK", "1")  # of somebody else's making
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert join() is ALONE
    assert ALONE.share([1, 2, 3]) == [1, 2, 3] and ALONE.gathered("x") == ["x"]


def test_shares_take_everything_once():
    items = list(range(11))
    shares = [Team(rank, 3).share(items) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("count", range(1, 20))
@pytest.mark.parametrize("least", [2, 4, 6])
def test_a_team_takes_the_steps_of_one_process_with_two_images_each(count, least):
    plan, alone = batch_plan(count, 6, least), batch_plan(count, 6)
    assert len(plan) == len(alone) and all(least <= len(places) <= 6 for places in plan)
    for places, own in zip(plan, alone, strict=True):
        assert set(own) <= set(places) <= set(range(count))
        assert count < least or len(set(places)) == len(places), "no image is twice in a batch that needs none"


def test_camvid_takes_as_many_steps_on_four_processes():
    assert len(batch_plan(367, 8, 8)) == len(batch_plan(367, 8)) == 46


def test_members_share_an_epoch_in_which_an_image_shown_again_looks_otherwise():
    images = Bands(6)
    members = [source_of(images, images.labels(3), Augmentation(), team=Team(rank, 2)) for rank in range(2)]
    assert all(source.sizes == [4, 4] and source.images_per_epoch == 8 for source in members)
    shares = [list(source.epoch(0)) for source in members]
    assert [[len(batch.images) for batch in share] for share in shares] == [[2, 2], [2, 2]]
    shown = torch.cat([batch.images for share in shares for batch in share])
    alone = torch.cat([batch.images for batch in source_of(images, images.labels(3), Augmentation()).epoch(0)])
    alike = (shown[:, None] == alone).flatten(2).all(2)  # [shown, of one process]
    assert alike.sum(0).tolist() == [1] * 6 and alike.sum() == len(shown) - 2


@pytest.mark.slow
def test_the_progress_of_a_team_ends_with_the_last_image(tmp_path):
    """Shares of an odd batch differ."""
    script = tmp_path / "counts.py"
    script.write_text(COUNTS, encoding="utf-8")
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([*TORCHRUN, str(script)], env=os.environ | paths, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (UserMistake("The images are odd."), "alseg: Process of rank 1: The images are odd.\n"),
        (ValueError("odd"), "alseg: Process of rank 1: Something went wrong inside alseg (ValueError: odd); the det"),
        (Unreachable("Another process of this run has ended."), ""),
        (Interrupted("Interrupted; it goes on."), ""),
        (KeyboardInterrupt(), ""),
    ],
)
def test_what_ends_a_muted_process_is_heard(error, heard, monkeypatch, capfd):
    def fails(*given, **options):
        print("a line of its progress", file=sys.stderr)
        raise error

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(app, "load_plugins", fails)
    with pytest.raises(SystemExit):
        app.main(["run"])
    said = capfd.readouterr()
    assert said.out == "" and said.err.startswith(heard) and said.err.count("\n") == bool(heard)


@pytest.mark.parametrize("name", ["compare", "report", "plugins"])
def test_a_command_of_one_process_is_refused_under_torchrun(name, cli, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    one_sentence(cli(name), f"start `alseg {name}` without it")
    monkeypatch.setenv("RANK", "1")
    other = cli(name)
    assert (other.code, other.out, other.err) == (0, "", ""), "one speaks, and is not ended before it has"


def test_torchrun_of_one_process_is_refused_nothing(cli, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert cli("plugins").code == 0


FAILS = """
import os
from alseg import hookimpl

@hookimpl
def register_acquirers(register):
    register("bad", lambda: utility)

def utility(batch):
    if os.environ.get("RANK") == "1" and len(batch.keys) > 1:  # not when it is rehearsed
        raise ValueError("this image is odd")
    best, second = batch.prediction.top2()
    return second - best
"""


@pytest.mark.slow
def test_an_error_on_a_process_that_does_not_lead_is_said(tmp_path):
    (tmp_path / "bad.py").write_text(FAILS, encoding="utf-8")
    data = write_camvid(tmp_path / "data", train=9, val=5)
    command = [*TORCHRUN, "-m", "alseg", "--plugin", str(tmp_path / "bad.py"), *words(data, tmp_path / "run")]
    command += ["--acquirer", "bad", "-o", "query.batch_size=4"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("alseg: Process of rank 1: The acquirer 'bad' of ") == 1, done.stderr
    assert "this image is odd" in done.stderr


@pytest.mark.slow
def test_gradients_are_those_of_the_whole_batch(tmp_path):
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    done = subprocess.run([*TORCHRUN, str(script)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def words(data: Path, out: Path) -> list[str]:
    given = ("run", "--dataset", "camvid", "--data", data, "--rounds", 2, "--acquirer", "margin", "--out", out)
    return [str(word) for word in (*given, "--selector", "topk-then-uniform", *SMALL, "--protocol", "honest")]


@pytest.mark.slow
def test_two_processes_ask_and_score_as_one_does(tmp_path, cli):
    data = write_camvid(tmp_path / "data", train=9, val=5)
    assert cli(*words(data, tmp_path / "one")).code == 0
    one = RunFolder(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    two = tmp_path / "two"
    # take away what the model of round 0 led to, and the score of round 1's, which stays
    lines = (two / "rounds.jsonl").read_text().splitlines(keepends=True)
    (two / "rounds.jsonl").write_text(lines[0])
    (two / "rounds" / "01" / "confusion.csv").unlink()
    (two / "rounds" / "01" / "questions.jsonl").unlink()
    labels = (two / "labels.jsonl").read_text().splitlines(keepends=True)
    (two / "labels.jsonl").write_text("".join(line for line in labels if '"round": 0' in line))
    done = subprocess.run([*TORCHRUN, "-m", "alseg", "resume", str(two)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert RunFolder(two).questions(1) == one.questions(1)
    scored = Path("rounds") / "01" / "confusion.csv"
    assert (two / scored).read_bytes() == (tmp_path / "one" / scored).read_bytes()


@pytest.mark.slow
def test_a_whole_run_of_two_processes(tmp_path):
    data = write_camvid(tmp_path / "data", train=9, val=5)
    done = subprocess.run(
        [*TORCHRUN, "-m", "alseg", *words(data, tmp_path / "run")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    records = RunFolder(tmp_path / "run").rounds()
    assert [record["labelled_pixels"] for record in records] == [90, 180]
    assert done.stdout.count("mIoU %") == 1, "one process speaks for all"
    more = [*TORCHRUN, "-m", "alseg", "resume", str(tmp_path / "run"), "--rounds", "3"]
    done = subprocess.run(more, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [record["labelled_pixels"] for record in RunFolder(tmp_path / "run").rounds()] == [90, 180, 270]


@pytest.mark.slow
def test_too_small_batches_are_refused_in_one_sentence(tmp_path):
    data = write_camvid(tmp_path / "data", train=9, val=5)
    command = [*TORCHRUN, "-m", "alseg", *words(data, tmp_path / "run"), "-o", "train.batch_size=3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("2 processes need batches of 4 images or more") == 1
