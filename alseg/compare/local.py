"""The runs of a comparison on this machine, several at a time, in processes that do one after another."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from alseg.compare.jobs import Job, Watch, log_of
from alseg.engine.memory import AT_ONCE

TICK = 0.25  # seconds between two looks at the runs
GRACE = 20.0  # seconds that an interrupted process has to end by itself
CLOSING = 1.0  # seconds that a process's last words have to be read
THREADS = 2  # that a run on a CPU has at least, where several run at once
MEMORY = 4 * 2**30  # bytes, and the memory it finds free
STOPPED = "the process that did it was stopped"


class LocalExecutor:
    """Runs on this machine: `jobs` at once, None: one a GPU, or one for each two cores without one."""

    def __init__(self, jobs: int | None = None) -> None:
        self._jobs = jobs

    def __call__(self, jobs: Sequence[Job], logs: Path, watch: Watch) -> None:
        """Carry out all jobs; see `alseg.compare.jobs.Executor`."""
        logs.mkdir(parents=True, exist_ok=True)
        stated = {str(job.settings.get("device")) for job in jobs}
        numbered = any(device.startswith("cuda:") for device in stated)  # such a run takes the GPU that it states
        devices = [] if numbered or stated == {"cpu"} else _gpus()
        count = self._jobs or (len(stated) if numbered else len(devices)) or _at_once()
        begun = min(count, len(jobs))
        ended: queue.SimpleQueue[tuple[Worker, Job, str | None]] = queue.SimpleQueue()
        workers = [Worker(environment(count, devices, place, begun), logs, ended) for place in range(begun)]
        waiting, pending, idle = list(jobs), {job.name for job in jobs}, list(workers)
        try:
            while pending:
                while idle and (job := next((job for job in waiting if job.after not in pending), None)) is not None:
                    waiting.remove(job)
                    watch.started(job)
                    idle.pop(0).begin(job)
                watch.tick()
                with contextlib.suppress(queue.Empty):
                    worker, job, error = ended.get(timeout=TICK)
                    idle.append(worker)
                    pending.discard(job.name)
                    watch.finished(job, error)
                    if error is not None:
                        _give_up_after(job, waiting, pending, watch)
        finally:
            end(workers)


def _give_up_after(failed: Job, waiting: list[Job], pending: set[str], watch: Watch) -> None:
    """Jobs that come after one that failed are not begun."""
    for job in [job for job in waiting if job.after == failed.name]:
        waiting.remove(job)
        pending.discard(job.name)
        watch.finished(job, f"{failed.name} failed, with which it begins")


class Worker:
    """A process that does one job at a time, started anew where it died; results go to a queue."""

    def __init__(
        self,
        environment: Mapping[str, str],
        logs: Path,
        ended: queue.SimpleQueue[tuple[Worker, Job, str | None]],
    ) -> None:
        self._environment, self._logs, self._ended = dict(environment), logs, ended
        self._thread: threading.Thread | None = None
        self.process: subprocess.Popen[str] | None = None

    def begin(self, job: Job) -> None:
        """Have a job done; returns at once."""
        self._thread = threading.Thread(target=self._do, args=(job,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the pipes to a process that has ended."""
        if self._thread is not None:
            self._thread.join(CLOSING)
            if self._thread.is_alive():
                return  # something that the process began holds its end still, and to close ours would wait for it
        self._close()

    def _close(self) -> None:
        for pipe in () if self.process is None else (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # what nobody reads any more
                    pipe.close()

    def _do(self, job: Job) -> None:
        try:
            error = self._done(job)
        except Exception as failure:  # whoever waits is told in any case
            error = f"{type(failure).__name__}: {failure}."
        self._ended.put((self, job, error))

    def _done(self, job: Job) -> str | None:
        """None, or what went wrong in a sentence."""
        process = self.process if self.process is not None and self.process.poll() is None else self._started()
        assert process.stdin is not None and process.stdout is not None
        log = log_of(self._logs, job)
        try:
            process.stdin.write(json.dumps({"job": asdict(job), "log": str(log)}) + "\n")
            process.stdin.flush()
            while answer := process.stdout.readline():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # what something else printed
                    error: str | None = json.loads(answer)["error"]
                    return error
        except OSError:
            pass
        code = process.wait()
        reason = f"by {signal.Signals(-code).name}" if code < 0 else f"with {code}"
        return f"{STOPPED} {reason}; {log} has what it said."

    def _started(self) -> subprocess.Popen[str]:
        self._close()  # of the one that died
        with open(self._logs / "workers.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "alseg.compare.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=self._environment,
                start_new_session=True,
            )
        return self.process


def end(workers: Sequence[Worker]) -> None:
    """End all processes: a run goes on from its last phase another time."""
    processes = [worker.process for worker in workers if worker.process is not None]
    for process in processes:
        process.terminate()
    latest = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.1, latest - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for worker in workers:
        worker.close()


def _at_once() -> int:
    """How many runs the cores and the memory that is free serve."""
    return max(1, min(_cores() // THREADS, _free_memory() // MEMORY))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> int:
    """Bytes that processes may still take; a lot where that cannot be told."""
    with contextlib.suppress(OSError, StopIteration, ValueError), open("/proc/meminfo", encoding="ascii") as file:
        return 1024 * int(next(line.split()[1] for line in file if line.startswith("MemAvailable")))
    return 2**50


def _gpus() -> list[str]:
    """The names of this process's GPUs, as CUDA_VISIBLE_DEVICES has them."""
    import torch

    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in stated.split(",")] if stated else []
    count = torch.cuda.device_count()
    return names[:count] if len(names) >= count else [str(i) for i in range(count)]


def environment(count: int, devices: Sequence[str], place: int, begun: int | None = None) -> Mapping[str, str]:
    """One GPU of `devices`, and this place's share of the cores, unless somebody gave the threads, and of the memory.

    count: the places, which share the cores, so that a run has as many threads in each; begun: how many are taken.
    """
    given = [os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    threads = given[0] if given else str(max(1, _cores() // count))
    environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **os.environ, AT_ONCE: str(begun or count)}
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
    return environment
