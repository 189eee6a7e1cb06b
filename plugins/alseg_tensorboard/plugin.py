"""What the package registers: the tracker `tensorboard`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alseg.hookspecs import hookimpl

if TYPE_CHECKING:
    from alseg.hookspecs import Register


def tensorboard(folder: Path | None = None) -> Any:
    """A round's metrics, queries and figures for TensorBoard (extra alseg[tensorboard]).

    folder: where its event files go, in a folder of the run's name and four letters; none: the run's `tensorboard`.
    """
    from alseg_tensorboard.tracker import TensorBoard

    return TensorBoard(folder)


@hookimpl
def register_trackers(register: Register) -> None:
    """TensorBoard."""
    register("tensorboard", tensorboard)
