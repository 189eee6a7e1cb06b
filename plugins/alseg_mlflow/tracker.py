"""A run in MLflow: what its life-cycle hooks tell, as parameters, metrics and artifacts of one MLflow run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from alseg.hookspecs import hookimpl
from alseg.store import write_whole
from alseg.tracking import metrics_of, parameters_of, query_pictures

LINK = "mlflow.json"  # in the run's folder: which MLflow run it is, so that a resumed one goes on with it
LONGEST = 6000  # characters that MLflow takes of a parameter
BATCH = 100  # parameters that it takes at once


class MLflow:
    """Logs as the run goes; the step is the round."""

    def __init__(self, uri: str | None, experiment: str) -> None:
        self._client, self._experiment = MlflowClient(uri), experiment

    @hookimpl
    def run_started(self, folder: str, settings: dict[str, Any]) -> None:
        """Begin an MLflow run with the settings as its parameters, or go on with the one it had."""
        link = Path(folder) / LINK
        parameters = parameters_of(settings)
        known: Mapping[str, str] = {}
        found = self._stored(link)
        if found is None:
            self._run = self._client.create_run(self._experiment_id(), run_name=Path(folder).resolve().name).info.run_id
            write_whole(link, json.dumps({"run": self._run, "folder": str(Path(folder).resolve())}).encode())
        else:
            self._run, known = found.info.run_id, found.data.params
            self._client.update_run(self._run, status="RUNNING")
        new = [Param(_name(key), value[:LONGEST]) for key, value in parameters.items() if _name(key) not in known]
        for start in range(0, len(new), BATCH):  # a parameter keeps its first value: a raised budget is in run.toml
            self._client.log_batch(self._run, params=new[start : start + BATCH])
        self._artifact(Path(folder) / "run.toml")

    @hookimpl
    def round_finished(self, folder: str, record: dict[str, Any]) -> None:
        """A round's metrics, its questions, its confusion matrix and pictures of both."""
        round, now = record["round"], int(time.time() * 1000)
        metrics = [Metric(_name(name), value, now, round) for name, value in metrics_of(record).items()]
        self._client.log_batch(self._run, metrics=metrics)
        place = f"rounds/{round:02}"
        for name in ("questions.jsonl", "confusion.csv"):
            self._artifact(Path(folder) / place / name, place)
        for number, (_, picture) in enumerate(query_pictures(folder, round)):
            self._client.log_image(self._run, picture, f"{place}/queries-{number:02}.png")
        samples = Path(folder) / place / "samples"
        if samples.is_dir():
            self._client.log_artifacts(self._run, str(samples), f"{place}/samples")

    @hookimpl
    def run_finished(self, folder: str, records: list[dict[str, Any]]) -> None:
        """The labels, the report and its figures; the MLflow run is finished."""
        for name in ("labels.jsonl", "rounds.jsonl", "report.html"):
            self._artifact(Path(folder) / name)
        figures = Path(folder) / "figures"
        if figures.is_dir():
            self._client.log_artifacts(self._run, str(figures), "figures")
        self._client.set_terminated(self._run)

    def _stored(self, link: Path) -> Any:
        """The MLflow run that a folder names, None where there is none or the server does not know it."""
        if not link.exists():
            return None
        try:
            known = json.loads(link.read_text())
            if known["folder"] != str(link.parent.resolve()):
                return None  # another run began as a copy of that one
            return self._client.get_run(known["run"])
        except (MlflowException, ValueError, KeyError):
            return None

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


def _name(text: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", text)
