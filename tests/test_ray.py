"""The executor on a Ray cluster, against the one on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from conftest import write_camvid
from test_startup import modules_after

from alseg.compare.jobs import Job, plan
from alseg.compare.local import LocalExecutor
from alseg.compare.request import understood
from alseg.compare.study import cells
from alseg.errors import UserMistake
from alseg.plugins import Registry, load_plugins
from alseg_ray.executor import _marked
from alseg_ray.plugin import ray as ray_executor
from alseg_ray.task import do, wait_until_free

ROOT = Path(__file__).parent.parent
HERE = EntryPoint("ray", "alseg_ray.plugin", "alseg")
SETTINGS = {
    **{"dataset": "camvid", "model.encoder": "test_resnet.r160_in1k", "model.weights": "none", "model.channels": "8"},
    **{"size": "64x64", "device": "cpu", "train.epochs": "6", "train.batch_size": "4", "rounds": "2"},
}


class Seen:
    """What an executor tells; `then` is called with each tick."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.told: list[tuple[str, str]] = []
        self.errors: dict[str, str] = {}
        self.tick = then

    def started(self, job: Job) -> None:
        self.told.append((job.name, "started"))

    def finished(self, job: Job, error: str | None) -> None:
        self.told.append((job.name, "finished"))
        if error is not None:
            self.errors[job.name] = error


def jobs_of(registry: Registry, root: Path, out: str, **settings: str) -> list[Job]:
    if not (root / "data").exists():
        write_camvid(root / "data")
    flags = {**SETTINGS, "dataset.data": str(root / "data"), **settings}
    request = understood((), flags, acquirers="margin", selectors="topk", seeds="1")
    return plan(cells(registry, request.grid, request.toml, request.flags), root / out)


def results(out: Path) -> dict[str, Any]:
    """What each run of a comparison asked, was told and scored."""
    found: dict[str, Any] = {}
    for run in sorted((out / "runs").iterdir()):
        lines = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
        asked = [path.read_text() for path in sorted(run.glob("rounds/*/questions.jsonl"))]
        scores = [{k: v for k, v in line.items() if not k.endswith("seconds")} for line in lines]
        found[run.name] = {"asked": asked, "labels": (run / "labels.jsonl").read_text(), "scores": scores}
    return found


LISTED = """
    from importlib.metadata import EntryPoint
    from alseg.plugins import load_plugins
    piece = load_plugins(entry_points=[EntryPoint("ray", "alseg_ray.plugin", "alseg")]).find("executor", "ray")
    assert set(piece.options()) == {"address", "cpus", "gpus", "memory"}
"""


def test_it_is_listed_without_ray():
    assert not modules_after(LISTED.strip()) & {"ray", "torch", "alseg_ray.executor"}


def test_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "ray" or name.startswith("alseg_ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    found = load_plugins(entry_points=[HERE]).find("executor", "ray")
    with pytest.raises(UserMistake, match=r"needs ray: pip install 'alseg\[ray\]'"):
        found.build(found.resolve({}))


def test_parts_of_several_gpus_are_refused():
    with pytest.raises(UserMistake, match="a part of one GPU or whole ones"):
        ray_executor(gpus=1.5)


def test_a_gpu_by_its_number_is_refused(tmp_path, registry):
    (job, *_) = jobs_of(registry, tmp_path, "out")
    numbered = replace(job, settings=job.settings | {"device": "cuda:1"})
    with pytest.raises(UserMistake, match="give --device cuda instead of cuda:1"):
        ray_executor()([numbered], tmp_path / "logs", Seen())


def test_an_address_where_nothing_is(tmp_path, registry):
    started = time.monotonic()
    with pytest.raises(UserMistake, match=r"127\.0\.0\.1:9 cannot be used: nothing answers there"):
        ray_executor(address="127.0.0.1:9")(jobs_of(registry, tmp_path, "out"), tmp_path / "logs", Seen())
    assert time.monotonic() - started < 15


def test_a_node_that_does_not_see_the_comparison_says_so(tmp_path, registry):
    job = jobs_of(registry, tmp_path, "out")[0]
    said = do(job, str(tmp_path), str(tmp_path / "elsewhere" / "mark"), None)
    assert said is not None and f"does not see {tmp_path / 'elsewhere'}" in said
    assert do(job, str(tmp_path), str(tmp_path), None, first="so it went") == "so it went"


def test_a_mark_that_a_killed_process_left_goes(tmp_path):
    (tmp_path / ".seen-before").touch()
    with _marked(tmp_path) as mark:
        assert list(tmp_path.iterdir()) == [mark]
    assert not list(tmp_path.iterdir())


def test_a_run_that_somebody_writes_is_waited_for(tmp_path):
    (tmp_path / "run.toml").touch()
    code = "import sys, time; from pathlib import Path; from alseg.store import RunFolder\n"
    code += "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(UserMistake, match=f"written by process {other.pid}"):
            wait_until_free(tmp_path, 0.1)
        timer = threading.Timer(1.0, other.kill)
        timer.start()
        wait_until_free(tmp_path, 30.0)
        timer.join()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of two nodes on this machine, one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def two_nodes(cluster: Any) -> str:
    """Its address."""
    return str(cluster.address)


@pytest.fixture(scope="module")
def on_this_machine(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> tuple[Path, dict[str, Any]]:
    """The data's folder and the local executor's results; one thread, as a task with one CPU has."""
    root, seen = tmp_path_factory.mktemp("grid"), Seen()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")
        LocalExecutor(1)(jobs_of(registry, root, "local"), root / "local" / "logs", seen)
    assert not seen.errors
    return root, results(root / "local")


@pytest.mark.slow
def test_a_cluster_of_two_nodes_has_the_same_results(two_nodes, on_this_machine, registry):
    root, expected = on_this_machine
    jobs, seen = jobs_of(registry, root, "ray"), Seen()
    ray_executor(address=two_nodes, cpus=1)(jobs, root / "ray" / "logs", seen)
    assert not seen.errors
    assert results(root / "ray") == expected
    first, *others = [job.name for job in jobs]
    assert seen.told[:2] == [(first, "started"), (first, "finished")] and len(others) == 2
    assert sorted(seen.told[2:]) == sorted((name, word) for name in others for word in ("started", "finished"))
    logs = sorted(path.name for path in (root / "ray" / "logs").iterdir())
    assert len(logs) == 4 and "ray.log" in logs


@pytest.mark.slow
def test_a_run_whose_process_is_killed_goes_on(two_nodes, on_this_machine, registry):
    root, expected = on_this_machine
    killed: list[int] = []

    def kill() -> None:
        """SIGKILL for who writes the run that has one round, once."""
        for writer in (root / "killed" / "runs").glob("margin*/.writer"):
            words = writer.read_text().split()
            if not killed and len(words) > 1:
                killed.append(int(words[1]))
                os.kill(killed[0], signal.SIGKILL)

    seen = Seen(kill)
    jobs = jobs_of(registry, root, "killed")
    ray_executor(address=two_nodes, cpus=1)(jobs, root / "killed" / "logs", seen)
    assert killed and not seen.errors
    assert results(root / "killed") == expected
    log = next((root / "killed" / "logs").glob("margin*.log")).read_text()
    processes = [line for line in log.splitlines() if line.startswith("On ")]
    assert len(processes) == 2 and processes[0].endswith(f"process {killed[0]}")
    assert len(set(seen.told)) == len(seen.told), "told twice"


@pytest.mark.slow
def test_a_run_whose_node_is_lost_goes_on(cluster, two_nodes, on_this_machine, registry):
    root, expected = on_this_machine
    head = cluster.head_node.all_processes["raylet"][0].process.pid
    lost: list[str] = []

    def lose() -> None:
        """SIGKILL for all of the other node than the head, once it does a run."""
        for writer in (root / "lost" / "runs").glob("*/.writer"):
            words = writer.read_text().split()
            node = parent_of(int(words[1])) if len(words) > 1 else head
            if not lost and node not in (None, head):
                lost.append(writer.parent.name)
                for process in (node, int(words[1])):
                    os.kill(process, signal.SIGKILL)

    seen = Seen(lose)
    ray_executor(address=two_nodes, cpus=1)(jobs_of(registry, root, "lost"), root / "lost" / "logs", seen)
    cluster.add_node(num_cpus=1)
    assert lost and not seen.errors
    assert results(root / "lost") == expected
    log = (root / "lost" / "logs" / f"{lost[0]}.log").read_text()
    assert len([line for line in log.splitlines() if line.startswith("On ")]) == 2


def parent_of(process: int) -> int | None:
    """None where it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


@pytest.mark.slow
def test_what_fails_is_told_and_what_comes_after_is_not_begun(two_nodes, tmp_path, registry):
    jobs, seen = jobs_of(registry, tmp_path, "out"), Seen()
    images = tmp_path / "data" / "train"
    images.rename(tmp_path / "away")
    ray_executor(address=two_nodes, cpus=1)(jobs, tmp_path / "out" / "logs", seen)
    first, *others = [job.name for job in jobs]
    assert set(seen.errors) == {first, *others} and str(tmp_path / "data") in seen.errors[first]
    assert {seen.errors[name] for name in others} == {f"{first} failed, with which it begins"}
    assert [told for told in seen.told if told[1] == "started"] == [(first, "started")]
    assert not (tmp_path / "out" / "runs").exists()


DRIVER = """
import sys
from pathlib import Path
from test_ray import Seen, jobs_of, ray_executor
from alseg.plugins import load_plugins
root = Path(sys.argv[1])
jobs = jobs_of(load_plugins(), root, "out", **{"train.epochs": "9999"})
ray_executor(address=sys.argv[2], cpus=1)(jobs, root / "out" / "logs", Seen())
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_goes_on_when_the_parent_ends(two_nodes, tmp_path, number):
    write_camvid(tmp_path / "data")
    words = [sys.executable, "-c", DRIVER, str(tmp_path), two_nodes]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", ROOT / "tests")))
    with subprocess.Popen(
        words,
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
        # a suite in the background ignores SIGINT, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as parent:
        try:
            writer = within(120, lambda: next((tmp_path / "out" / "first-rounds").glob("*/.writer"), None))
            process = int(within(10, writer.read_text).split()[1])
            parent.send_signal(number)
            within(20, lambda: not Path(f"/proc/{process}").exists())
            parent.wait(30)
        finally:
            parent.kill()


def within(seconds: float, look: Callable[[], Any]) -> Any:
    """What a look finds, once it finds something."""
    latest = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < latest, "it took too long"
        time.sleep(0.1)
    return found
