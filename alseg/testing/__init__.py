"""The contract kit: what a plugin's author calls to know that a piece will work in every run.

    from alseg.testing import check_acquirer

    def test_rivals():
        check_acquirer(rivals)                                # the factory that is registered
        check_acquirer(rivals, {"classes": 2})                # with options, as -o acquirer.classes=2 gives them
        check_acquirer("rivals", registry=load_plugins([Path("rivals.py")]))    # by name; "power:rivals" is one too

Each call builds the piece, does with it what a run does, and raises one `ContractError` that names every check that
failed, what was found and how to mend it; else it gives a `Report`. `skip={"batch-size": "its image is compared with
the others"}` leaves a check out. All checks: docs/testing.md, or `checks_of("acquirer")`. A selector's, model's,
dataset's, oracle's, term's, tracker's, recipe's and executor's are called in the same way.

What the checks use is there for tests of one's own: `tiny_dataset`, `write_tiny_dataset`, `tiny_model`, `tiny_run`
and `pool_batch`, with pytest also as fixtures (alseg.testing.pytest_plugin). Importing this loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alseg.testing.contract import ContractError, Failure, Report

if TYPE_CHECKING:
    from alseg.testing.acquirers import check_acquirer
    from alseg.testing.checking import check_piece, checks_of
    from alseg.testing.datasets import check_dataset
    from alseg.testing.executors import check_executor
    from alseg.testing.models import check_model
    from alseg.testing.oracles import check_oracle
    from alseg.testing.pools import pool_batch
    from alseg.testing.recipes import check_recipe
    from alseg.testing.selectors import check_selector
    from alseg.testing.terms import check_term
    from alseg.testing.tiny import tiny_dataset, tiny_model, write_tiny_dataset
    from alseg.testing.tiny_runs import tiny_run
    from alseg.testing.trackers import check_tracker

_HOME_OF = {
    "check_acquirer": "acquirers",
    "check_dataset": "datasets",
    "check_executor": "executors",
    "check_model": "models",
    "check_oracle": "oracles",
    "check_piece": "checking",
    "check_recipe": "recipes",
    "check_selector": "selectors",
    "check_term": "terms",
    "check_tracker": "trackers",
    "checks_of": "checking",
    "pool_batch": "pools",
    "tiny_dataset": "tiny",
    "tiny_model": "tiny",
    "tiny_run": "tiny_runs",
    "write_tiny_dataset": "tiny",
}

__all__ = [
    "ContractError",
    "Failure",
    "Report",
    "check_acquirer",
    "check_dataset",
    "check_executor",
    "check_model",
    "check_oracle",
    "check_piece",
    "check_recipe",
    "check_selector",
    "check_term",
    "check_tracker",
    "checks_of",
    "pool_batch",
    "tiny_dataset",
    "tiny_model",
    "tiny_run",
    "write_tiny_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"alseg.testing.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'alseg.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
