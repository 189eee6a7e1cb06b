"""What the package registers: the tracker `mlflow`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alseg.hookspecs import hookimpl

if TYPE_CHECKING:
    from alseg.hookspecs import Register


def mlflow(uri: str | None = None, experiment: str = "alseg") -> Any:
    """A round's metrics, queries and figures in MLflow (extra alseg[mlflow]).

    uri: the tracking server or database, such as http://HOST:5000 or sqlite:///mlflow.db; none: what the environment
    variable MLFLOW_TRACKING_URI says, or mlflow.db in the working folder. experiment: made where there is none.
    """
    from alseg_mlflow.tracker import MLflow

    return MLflow(uri, experiment)


@hookimpl
def register_trackers(register: Register) -> None:
    """MLflow."""
    register("mlflow", mlflow)
