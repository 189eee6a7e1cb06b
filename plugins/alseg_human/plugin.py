"""What the package registers: the person who answers, and the person who picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alseg.hookspecs import hookimpl

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Oracle, Selector


def human_oracle() -> Oracle:
    """A person who names each pixel's class by a key, in a browser (extra alseg[human])."""
    from alseg_human.people import Labeller

    return Labeller()


def human_selector() -> Selector:
    """A person who clicks the pixels to label, n an image, seeing the prediction (the paper's section D)."""
    from alseg_human.people import Picker

    return Picker()


@hookimpl
def register_oracles(register: Register) -> None:
    """Who answers."""
    register("human", human_oracle)


@hookimpl
def register_selectors(register: Register) -> None:
    """Who picks."""
    register("human", human_selector)
