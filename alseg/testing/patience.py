"""Calls that must not keep a run waiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from alseg.testing.contract import Broken

T = TypeVar("T")
SECONDS = 20.0  # long even for a machine that does much else


def at_once(call: Callable[[], T], what: str, mend: str) -> T:
    """What a call gives; Broken where it has not come back after SECONDS, and is left to itself."""
    ended: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def do() -> None:
        try:
            ended.put((call(), None))
        except BaseException as error:
            ended.put((None, error))

    threading.Thread(target=do, daemon=True).start()
    try:
        result, error = ended.get(timeout=SECONDS)
    except queue.Empty:
        raise Broken(f"{what} has not returned after {SECONDS:g} seconds", mend) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
