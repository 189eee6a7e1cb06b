"""The runs of a comparison as tasks of Ray, each after the one that makes its first round."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alseg.compare.jobs import Job, Watch, log_of
from alseg.errors import UserMistake
from alseg_ray.cluster import Cluster, connected, ray
from alseg_ray.task import blind, do, unseen

MARK = ".seen-"  # what the name of the file begins with by which nodes see the comparison
TICK = 0.25  # seconds between two looks at the tasks
GRACE = 10.0  # seconds that an interrupted run has to end by itself
ANSWER = 60.0  # seconds that a node has to say whether it sees the comparison
RETRIES = 5  # how often a run goes on elsewhere that was lost with its process or node
# what Ray says of a task whose process or node it has lost
GONE = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskUnschedulableError,  # it went a moment ago
)
CORES = 2.0  # for a run of which nobody said how many


class RayExecutor:
    """Runs on a Ray cluster; address None: the one that is there, or this machine. memory: GiB."""

    def __init__(
        self,
        address: str | None = None,
        *,
        cpus: float | None = None,
        gpus: float | None = None,
        memory: float | None = None,
    ) -> None:
        if gpus is not None and gpus > 1 and not gpus.is_integer():
            raise UserMistake(f"A run takes a part of one GPU or whole ones, not {gpus:g}.")
        self._address, self._cpus, self._gpus, self._memory = address, cpus, gpus, memory

    def __call__(self, jobs: Sequence[Job], logs: Path, watch: Watch) -> None:
        """Carry out all jobs; see `alseg.compare.jobs.Executor`. Raises UserMistake for a GPU by its number."""
        for device in (str(job.settings.get("device")) for job in jobs):
            if device.startswith("cuda:"):
                raise UserMistake(f"Ray chooses each run's GPU: give --device cuda instead of {device}.")
        logs = Path(os.path.abspath(logs))
        logs.mkdir(parents=True, exist_ok=True)
        with connected(self._address, logs) as cluster, _marked(logs) as mark:
            needs = {job.name: self._needs(job, cluster) for job in jobs}
            _check(cluster, max(needs.values(), key=lambda need: need.get("GPU", 0.0)), mark)
            begun = _queue()
            tasks = _submitted(jobs, needs, str(mark), begun)
            try:
                _follow(tasks, begun, logs, watch)
            finally:
                _end(list(tasks))

    def _needs(self, job: Job, cluster: Cluster) -> dict[str, float]:
        """What a run takes of its node, as Ray names it."""
        gpus = self._gpus if self._gpus is not None else min(1.0, cluster.most("GPU"))
        needs = {"CPU": self._cpus or max(1.0, min(CORES, cluster.most("CPU")))}
        if gpus and job.settings.get("device") != "cpu":
            needs["GPU"] = gpus
        if self._memory is not None:
            needs["memory"] = self._memory * 2**30
        return needs


@contextlib.contextmanager
def _marked(logs: Path) -> Iterator[Path]:
    """A file by which a node is known to see the comparison; that of a process that was killed goes."""
    for old in logs.glob(f"{MARK}*"):
        old.unlink(missing_ok=True)
    mark = logs / f"{MARK}{uuid.uuid4().hex}"
    mark.touch()
    try:
        yield mark
    finally:
        mark.unlink(missing_ok=True)


def _check(cluster: Cluster, need: Mapping[str, float], mark: Path) -> None:
    """UserMistake where a node cannot do a run or does not see the comparison, or where none can ever be free."""
    able = cluster.able(need)
    if not able:
        stated = f"{need['CPU']:g} CPU, {need.get('GPU', 0):g} GPU and {need.get('memory', 0) / 2**30:g} GiB"
        if cluster.own:
            raise UserMistake(f"A run is to have {stated}, more than this machine: see -o executor.cpus, gpus, memory.")
        print(f"A run is to have {stated}, more than any node: runs begin once one joins.", file=sys.stderr)
    look = ray.remote(blind)
    looks = [look.options(num_cpus=0, scheduling_strategy=_on(node)).remote(str(mark)) for node in able]
    answered, _ = ray.wait(looks, num_returns=len(looks), timeout=ANSWER) if looks else ([], [])
    for ref in answered:
        try:
            node = ray.get(ref)
        except GONE:
            continue  # others do its runs
        except ray.exceptions.RayError as error:
            raise UserMistake(f"A node of the cluster cannot begin a run: {_sentence(error)}") from error
        if node is not None:
            raise UserMistake(unseen(node, str(mark)))


def _on(node: str, soft: bool = False) -> Any:
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=soft)


def _queue() -> Any:
    """A queue for the names of the jobs that have begun, on the node of this process."""
    from ray.util.queue import Queue

    here = _on(ray.get_runtime_context().get_node_id(), soft=True)
    return Queue(actor_options={"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": here})


def _submitted(jobs: Sequence[Job], needs: Mapping[str, Mapping[str, float]], mark: str, begun: Any) -> dict[Any, Job]:
    """A task for each job, which Ray begins when the one that it is after has ended."""
    remote = ray.remote(do)
    refs: dict[str, Any] = {}
    for job in jobs:
        need = needs[job.name]
        task = remote.options(
            name=job.name,
            num_cpus=need["CPU"],
            num_gpus=need.get("GPU", 0),
            memory=int(need["memory"]) if "memory" in need else None,
            max_retries=RETRIES,
        )
        placed = replace(job, folder=os.path.abspath(job.folder), first=job.first and os.path.abspath(job.first))
        refs[job.name] = task.remote(placed, os.getcwd(), mark, begun, refs.get(job.after) if job.after else None)
    return {refs[job.name]: job for job in jobs}


def _follow(tasks: dict[Any, Job], begun: Any, logs: Path, watch: Watch) -> None:
    """Tell how the tasks go until none is left; what has ended is taken out of them."""
    silent = {job.name: job for job in tasks.values()}
    while tasks:
        ended, _ = ray.wait(list(tasks), num_returns=len(tasks), timeout=TICK)
        heard = set(begun.get_nowait_batch(begun.qsize()))
        for ref in ended:
            if (job := tasks.pop(ref, None)) is None:
                continue  # given up a moment ago
            if (error := _error_of(ref, log_of(logs, job))) is None:
                heard.add(job.name)
            _begun(heard & {job.name}, silent, watch)
            _finished(job, error, tasks, watch)
        _begun(heard, silent, watch)
        watch.tick()


def _begun(heard: Iterable[str], silent: dict[str, Job], watch: Watch) -> None:
    """Tell once of each job that it has begun; one that goes on elsewhere says it again."""
    for name in heard:
        if (job := silent.pop(name, None)) is not None:
            watch.started(job)


def _finished(job: Job, error: str | None, tasks: dict[Any, Job], watch: Watch) -> None:
    """Jobs that come after one that failed are not begun."""
    watch.finished(job, error)
    if error is None:
        return
    for ref in [ref for ref, other in tasks.items() if other.after == job.name]:
        ray.cancel(ref)
        _finished(tasks.pop(ref), f"{job.name} failed, with which it begins", tasks, watch)


def _error_of(ref: Any, log: Path) -> str | None:
    """What came of a task that has ended: None, or what went wrong in a sentence."""
    try:
        error: str | None = ray.get(ref)
        return error
    except GONE:
        return f"the process that did it was lost {RETRIES + 1} times; {log} has what it said."
    except ray.exceptions.RayError as error:
        return _sentence(error)


def _sentence(error: Exception) -> str:
    """What Ray says, on one line; of an error in a task only the error."""
    told = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
    return " ".join(f"{type(told).__name__}: {told}".split())


def _end(refs: list[Any]) -> None:
    """End the tasks that are left: a run goes on from its last phase another time."""
    if not refs:
        return
    for ref in refs:
        ray.cancel(ref)
    _, left = ray.wait(refs, num_returns=len(refs), timeout=GRACE)
    for ref in left:
        ray.cancel(ref, force=True)
