"""Real runs: what the README promises, and a process killed at any instant."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from PIL import Image
from safetensors import safe_open
from test_run import fingerprint, lines

pytestmark = pytest.mark.slow


def alseg(*words: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "alseg", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_the_default_run_learns(tmp_path):
    process = alseg("run", "--out", tmp_path / "run", "--json")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    scores = [row["miou"] for row in lines(tmp_path / "run" / "rounds.jsonl")]
    assert len(scores) >= 3
    assert scores[-1] - scores[0] >= 0.05, scores


def test_active_learning_beats_chance_on_the_default_dataset(tmp_path):
    finals = {}
    for acquirer, selector in (("margin", "topk-then-uniform"), ("random", "uniform")):
        out = tmp_path / acquirer
        process = alseg("run", "--acquirer", acquirer, "--selector", selector, "--out", out, "--seed", 1)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        finals[acquirer] = lines(out / "rounds.jsonl")[-1]["miou"]
    assert finals["margin"] > finals["random"] + 0.02, finals


KILLS = 50


def test_a_run_killed_at_fifty_instants_ends_as_if_it_had_not_been(tmp_path):
    words = ["-o", "dataset.train_images=12", "-o", "dataset.val_images=4", "-o", "train.epochs=4", "--rounds", 12]
    words += ["--first-pixels", 2, "--pixels-per-round", 1, "--budget", 30, "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = alseg("run", *words, "--out", tmp_path / "whole", env=environment)
    assert process.wait(timeout=600) == 0
    broken, chance, kills, recorded = tmp_path / "broken", random.Random(0), 0, b""
    process = alseg("run", *words, "--out", broken, env=environment)
    while not (broken / "run.toml").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    while kills < KILLS:
        # the first instants of a call are spent on starting; from the writer's lock on it works on the run
        time.sleep(chance.uniform(0.0, 1.5))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        rounds = (broken / "rounds.jsonl").read_bytes() if (broken / "rounds.jsonl").exists() else b""
        assert rounds.startswith(recorded), "a finished round was changed"
        recorded = rounds
        assert_whole(broken)
        if len(recorded.splitlines()) >= 12:
            (broken / "rounds.jsonl").unlink()  # all over again from the files of its rounds
            recorded = b""
        process = alseg("resume", broken, env=environment)
        while process.poll() is None and not (broken / ".writer").exists():
            time.sleep(0.01)
    process.communicate()
    assert alseg("resume", broken, env=environment).wait(timeout=600) == 0
    assert fingerprint(broken) == fingerprint(tmp_path / "whole")


def assert_whole(run: Path) -> None:
    """No file under its own name is torn; the journal may end in half a line, which is cut when opened."""
    for path in run.rglob("*.jsonl"):
        content = path.read_bytes()
        if path.name != "journal.jsonl":
            assert not content or content.endswith(b"\n")
            for line in content.splitlines():
                json.loads(line)
    for path in run.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert file.keys()
    for path in run.rglob("*.png"):
        Image.open(path).load()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_told_to_stop_says_how_to_go_on(tmp_path, how):
    # a suite that runs in the background ignores SIGINT, and its children would too
    heeding = {"preexec_fn": lambda: signal.signal(how, signal.SIG_DFL)}
    process = alseg("run", "--out", tmp_path / "run", **heeding)
    while not (tmp_path / "run" / "journal.jsonl").exists():
        time.sleep(0.02)
    time.sleep(1)
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert f"`alseg resume {tmp_path / 'run'}` goes on" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run" / ".writer").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path, small_disk):
    words = [
        "-o",
        "dataset.train_images=12",
        "-o",
        "dataset.val_images=4",
        "-o",
        "train.epochs=2",
        "-o",
        "report=false",
    ]
    process = alseg("run", *words, "--rounds", 2, "--out", small_disk / "run", "--device", "cpu")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1, output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert_whole(small_disk / "run")
    moved = shutil.copytree(small_disk / "run", tmp_path / "moved")
    resumed = alseg("resume", moved)
    output, _ = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, output
    whole = alseg("run", *words, "--rounds", 2, "--out", tmp_path / "whole", "--device", "cpu")
    assert whole.wait(timeout=300) == 0
    assert fingerprint(moved) == fingerprint(tmp_path / "whole")


def test_two_processes_on_one_run_do_not_meet(tmp_path):
    words = ["-o", "dataset.train_images=12", "-o", "train.epochs=20", "--rounds", 2, "--out", tmp_path / "run"]
    first = alseg("run", *words)
    while not (tmp_path / "run" / ".writer").exists():
        time.sleep(0.02)
    second = alseg("resume", tmp_path / "run")
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2, output
    assert f"is being written by process {first.pid}" in output
    assert first.wait(timeout=300) == 0


def test_the_wheel_works_in_an_environment_of_its_own(tmp_path):
    """The wheel, not the checkout; what it depends on is lent by the environment of the tests."""
    root = Path(__file__).parent.parent
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("alseg-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python, scripts = tmp_path / "env" / "bin" / "python", tmp_path / "env" / "bin"
    site = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True
    )
    target = Path(site.stdout.strip())
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    package = root / "examples" / "alseg-ripu"
    subprocess.run([*pip, "--no-build-isolation", "--no-index", str(wheel)], check=True, capture_output=True)
    (target / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")  # comes after the wheel
    subprocess.run([*pip, "--no-build-isolation", "--no-index", str(package)], check=True, capture_output=True)
    plugins = [path.name for path in (root / "plugins").iterdir() if (path / "plugin.py").exists()]
    for name in ("alseg", *plugins):
        assert (target / name / "py.typed").exists(), name
    for folder in ("plugins/alseg_human/page", "alseg/scaffold/templates"):
        kept = {str(path.relative_to(root / folder)) for path in (root / folder).rglob("*") if path.suffix != ".pyc"}
        place = target / folder.removeprefix("plugins/")
        assert kept - {str(path.relative_to(place)) for path in place.rglob("*")} <= {"__pycache__"}, folder

    def alseg(*words: object) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        line = [str(scripts / "alseg"), *map(str, words)]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return done.stdout

    rows = json.loads(alseg("plugins", "--json"))
    assert {row["status"] for row in rows} == {"ok"}
    assert {"deeplabv3plus", "camvid", "human", "ray", "mlflow", "ripu"} <= {row["name"] for row in rows}
    found = subprocess.run(
        [python, "-c", "import alseg; print(alseg.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).is_relative_to(target)
    small = ["-o", "dataset.train_images=4", "-o", "dataset.val_images=2", "-o", "dataset.side=32"]
    small += ["-o", "train.epochs=1", "-o", "model.channels=8", "--rounds", "2", "--device", "cpu"]
    alseg("run", *small, "--acquirer", "ripu", "--out", tmp_path / "run")
    alseg("plugins", "new", "my_model", "--kind", "model")
    assert (tmp_path / "my_model" / "src" / "my_model" / "network.py").exists()
