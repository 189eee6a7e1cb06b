"""Reaching a Ray cluster, and what its nodes have."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alseg.compare.worker import printing_to
from alseg.errors import UserMistake

try:
    import ray
    from ray._private import services
except ImportError as error:
    raise UserMistake(f"The executor 'ray' needs {error.name}: pip install 'alseg[ray]'.") from error

__all__ = ["Cluster", "connected", "ray"]
PATIENCE = 10.0  # seconds for a node to answer


@dataclass(frozen=True)
class Cluster:
    """A cluster that is reached; own: of this process alone, on this machine."""

    own: bool

    def nodes(self) -> list[Mapping[str, Any]]:
        """The nodes that live."""
        return [node for node in ray.nodes() if node["Alive"]]

    def most(self, resource: str) -> float:
        """How much of something the node has that has most of it."""
        return max((float(node["Resources"].get(resource, 0)) for node in self.nodes()), default=0.0)

    def able(self, needs: Mapping[str, float]) -> list[str]:
        """The nodes, by their ids, that have what a run needs."""
        return [
            node["NodeID"]
            for node in self.nodes()
            if all(node["Resources"].get(name, 0) >= amount for name, amount in needs.items())
        ]


@contextlib.contextmanager
def connected(address: str | None, folder: Path) -> Iterator[Cluster]:
    """The cluster at an address; None: the one that is there, or else one of our own, on this machine.

    folder: where ray.log is written; it holds no Python files, for Ray's processes look for modules first in the
    folder where a connection is made. A connection that is there already is used and left.
    Raises UserMistake where there is no such cluster.
    """
    if ray.is_initialized():
        yield Cluster(own=False)
        return
    with contextlib.chdir(folder):
        own = _reach(address)
    try:
        yield Cluster(own)
    finally:
        ray.shutdown()  # the processes of our tasks end with the connection


def _reach(address: str | None) -> bool:
    """Connect; whether the cluster is our own. What Ray says of it on the way goes to ray.log."""
    asked = address or os.environ.get("RAY_ADDRESS")
    try:
        place = services.canonicalize_bootstrap_address(asked or None)  # type: ignore[arg-type]
        if place is not None and not _listens(place):
            if asked:
                raise ConnectionError("nothing answers there")
            place = None  # the cluster that was on this machine has gone
        with _signals_kept(), printing_to("ray.log"):
            _begin(place or "local")
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).split(". ")[0]
        if "AuthenticationError" in str(error.__cause__):
            reason = "it wants the token of its head node, ~/.ray/auth_token, and RAY_AUTH_MODE=token"
        raise UserMistake(f"The Ray cluster {asked} cannot be used: {' '.join(reason.split()).rstrip('.')}.") from error
    return place is None


def _listens(place: str) -> bool:
    """Whether there is anything at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def _begin(address: str) -> None:
    """Connect, quietly."""
    path = os.environ.get("PYTHONPATH")  # what is imported here must be there
    ray.init(
        address,
        runtime_env={"env_vars": {"PYTHONPATH": path}} if path else None,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray's answer to SIGTERM is not ours."""
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGTERM, before)
