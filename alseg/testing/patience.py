"""Calls that must not keep a run waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from alseg.testing.contract import Broken

T = TypeVar("T")
SECONDS = 20.0  # long even for a machine that does much else


def at_once(call: Callable[[], T], what: str, mend: str) -> T:
    """What a call gives; Broken where it has not come back after SECONDS, and is left to itself."""
    ended: Future[T] = Future()

    def do() -> None:
        try:
            ended.set_result(call())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=do, daemon=True).start()
    if not wait([ended], SECONDS).done:
        raise Broken(f"{what} has not returned after {SECONDS:g} seconds", mend)
    return ended.result()
