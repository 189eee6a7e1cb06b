"""A run in MLflow: what its life-cycle hooks tell, as parameters, metrics and artifacts of one MLflow run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.tracking import get_tracking_uri

from alseg.attending import user_name
from alseg.hookspecs import hookimpl
from alseg.tracking import metrics_of, parameters_of, query_pictures, records_of, settings_of
from alseg.writing import write_whole

LINK = "mlflow.json"  # in the run's folder: its MLflow runs, so that a resumed one goes on with the same
LONGEST, LONGEST_TAG = 6000, 5000  # characters that MLflow takes of a parameter, and of a tag
BATCH, METRICS = 100, 1000  # parameters, and metrics, that it takes at once
LONGEST_NAME = 240  # characters that it takes of a name, less those of a number
MARK = "labelled_pixels"  # a metric that every round has: it says which rounds were sent
STOPPED = "alseg.stopped"  # a tag: why the run ended before it was complete; it goes when the run goes on
STATUS = {"interrupted": "KILLED", "failed": "FAILED", "waiting": "SCHEDULED", "asked": "FINISHED"}
# a server that does not answer must not stop a run for minutes; whoever sets these is heard
IMPATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MLflow:
    """Logs as the run goes; the step is the round. It begins again where the server did not answer before."""

    def __init__(self, uri: str | None, experiment: str) -> None:
        self._uri, self._experiment = absolute(uri or get_tracking_uri()), experiment
        self._run: str | None = None

    @hookimpl
    def run_started(self, folder: str, settings: dict[str, Any]) -> None:
        """Begin an MLflow run with the settings as its parameters, or go on with the one it had."""
        with self._or_again():
            self._begun(Path(folder))

    @hookimpl
    def round_finished(self, folder: str, record: dict[str, Any]) -> None:
        """A round's metrics, its questions, its confusion matrix and pictures of both."""
        with self._or_again():
            if self._run is None:
                self._begun(Path(folder))  # which sends all rounds that there are
            else:
                self._send(Path(folder), record)

    @hookimpl
    def run_finished(self, folder: str, records: list[dict[str, Any]]) -> None:
        """The labels, the report and its figures; the MLflow run is finished."""
        with self._or_again():
            if self._run is None:
                self._begun(Path(folder))
            for name in ("labels.jsonl", "rounds.jsonl", "report.html"):
                self._artifact(Path(folder) / name)
            figures = Path(folder) / "figures"
            if figures.is_dir():
                self._client.log_artifacts(self._run, str(figures), "figures")
            self._client.set_terminated(self._run)

    @hookimpl
    def run_stopped(self, folder: str, reason: str, message: str) -> None:
        """The MLflow run ends with what was asked last; it goes on when the run does."""
        run, asked = Path(folder), len(records_of(folder))
        if self._run is None and not (run / LINK).exists():
            return  # it was never begun
        with self._or_again():
            if self._run is None:
                self._begun(run)
            if reason in ("waiting", "asked"):
                self._artifact(run / "asked.json")
                self._send_questions(run, asked)
            self._client.set_tag(self._run, STOPPED, f"{reason}: {message}"[:LONGEST_TAG])
            self._client.set_terminated(self._run, STATUS.get(reason, "KILLED"))

    @contextlib.contextmanager
    def _or_again(self) -> Iterator[None]:
        """Where sending fails, which it does soon, the next hook begins again, which sends what is missing."""
        added = IMPATIENT.keys() - os.environ.keys()
        os.environ.update({name: IMPATIENT[name] for name in added})
        try:
            yield
        except BaseException:
            self._run = None
            raise
        finally:
            for name in added:
                os.environ.pop(name, None)

    def _begun(self, folder: Path) -> None:
        """Begin or go on, and send what was recorded and not sent: a kill may have come between the two."""
        with one_at_a_time():
            self._client = MlflowClient(self._uri)
            experiment = self._experiment_id()
        linked = linked_runs(folder)
        stored = (self._stored(run, experiment) for run in linked)
        found = next((run for run in stored if run is not None), None)
        if found is None:
            run = self._client.create_run(experiment, run_name=folder.resolve().name).info.run_id
        else:
            run = found.info.run_id
            self._client.update_run(run, status="RUNNING")
            if STOPPED in found.data.tags:
                self._client.delete_tag(run, STOPPED)
        link = {"folder": str(folder.resolve()), "runs": list(dict.fromkeys([run, *linked]))}
        write_whole(folder / LINK, json.dumps(link).encode())
        known = {} if found is None else found.data.params
        settings = parameters_of(settings_of(folder))
        names = names_of(settings)
        params = [Param(names[key], value[:LONGEST]) for key, value in settings.items() if names[key] not in known]
        for start in range(0, len(params), BATCH):  # a parameter keeps its first value: a raised budget is in run.toml
            self._client.log_batch(run, params=params[start : start + BATCH])
        sent = {metric.step for metric in self._client.get_metric_history(run, MARK)}
        self._run = run
        self._artifact(folder / "run.toml")
        for record in records_of(folder):
            if record["round"] not in sent:
                self._send(folder, record)

    def _send(self, folder: Path, record: dict[str, Any]) -> None:
        round, now = record["round"], int(time.time() * 1000)
        place = f"rounds/{round:02}"
        self._send_questions(folder, round)
        self._artifact(folder / place / "confusion.csv", place)
        samples = folder / place / "samples"
        if samples.is_dir():
            self._client.log_artifacts(self._run, str(samples), f"{place}/samples")
        found = metrics_of(record)
        nulls = [f"{name}/{part}" for name, each in record.items() if isinstance(each, Mapping) for part in each]
        names = names_of([*nulls, *found])  # a class that has no value in this round keeps its number
        found[MARK] = found.pop(MARK)  # last: it says that the round was sent
        metrics = [Metric(names[name], value, now, round) for name, value in found.items()]
        for start in range(0, len(metrics), METRICS):
            self._client.log_batch(self._run, metrics=metrics[start : start + METRICS])

    def _send_questions(self, folder: Path, round: int) -> None:
        place = f"rounds/{round:02}"
        questions = folder / place / "questions.jsonl"
        if questions.exists():
            self._artifact(questions, place)
            for number, (_, picture) in enumerate(query_pictures(folder, round)):
                self._client.log_image(self._run, picture, f"{place}/queries-{number:02}.png")

    def _stored(self, run: str, experiment: str) -> Any:
        """An MLflow run, None where it is of another server or experiment, or was deleted."""
        try:
            found = self._client.get_run(run)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None
        active = found.info.lifecycle_stage == "active"
        return found if active and found.info.experiment_id == experiment else None

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except MlflowException:  # another run has made it at the same moment
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _artifact(self, path: Path, place: str | None = None) -> None:
        if path.exists():
            self._client.log_artifact(self._run, str(path), place)


def linked_runs(folder: Path) -> list[str]:
    """The MLflow runs of a run, of whichever server and experiment, the last first; none where it began as a copy."""
    known = _link(folder)
    if not known:
        return []
    runs, origin = list(known["runs"]), Path(known["folder"])
    if origin != folder.resolve():
        its = _link(origin)  # where it is another's or gone, the run was moved
        if its.get("folder") == known["folder"] and not set(its["runs"]).isdisjoint(runs):
            return []
    return runs


def _link(folder: Path) -> dict[str, Any]:
    path = folder / LINK
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def absolute(uri: str) -> str:
    """An address that is the same from another folder: sqlite:///mlflow.db is a file of this one."""
    head, slashes, path = uri.partition("sqlite:///")
    relative = slashes and not head and path and not path.startswith(("/", ":"))
    return f"sqlite:///{Path(path).absolute()}" if relative else uri


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Processes that open one new database at once would each make its tables."""
    # one file a user, whatever the database: it cannot be removed while another process may wait for it
    with FileLock(Path(tempfile.gettempdir()) / f"alseg-mlflow-{user_name()}.lock"):
        yield


def names_of(texts: Iterable[str]) -> dict[str, str]:
    """A name that MLflow takes for each text; of those that would be one, all but the first have a number."""
    found: dict[str, str] = {}  # by name
    for text in sorted(set(texts), key=lambda text: (_name(text) != text, text)):
        numbered = (f"{_name(text)}_{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([_name(text)], numbered) if name not in found)
        found[name] = text
    return {text: name for name, text in found.items()}


def _name(text: str) -> str:
    """A text as a path of one or two parts, such as iou/road, none of them empty or a dot."""
    parts = (re.sub(r"[^\w\-. ]", "_", part) for part in text.split("/", 1))
    return "/".join(re.sub(r"^\.{0,2}$", "_", part) for part in parts)[:LONGEST_NAME]
