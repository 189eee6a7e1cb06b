"""Any kind's contract by its name."""

from __future__ import annotations

import importlib
from typing import Any

from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.pieces import GIVEN
from alseg.testing.contract import Contract, Report
from alseg.testing.subjects import What


def check_piece(kind: str, piece: What, *arguments: Any, **more: Any) -> Report:
    """`check_acquirer` for the kind "acquirer", and so on; raises ContractError, UserMistake for an unknown kind."""
    return getattr(_module(kind), f"check_{kind}")(piece, *arguments, **more)


def checks_of(kind: str) -> dict[str, str]:
    """The checks of a kind, in order, each with the sentence on what it checks."""
    module = _module(kind)
    if kind == "model":
        import alseg.testing.model_training  # noqa: F401  the rest of the checks
    contract: Contract[Any] = module.CONTRACT
    return {check.name: check.says for check in contract.checks}


def _module(kind: str) -> Any:
    if not isinstance(kind, str):
        raise UserMistake(f"First comes the kind, such as 'acquirer', and not {kind!r}: check_piece(KIND, FACTORY).")
    if kind not in GIVEN:
        raise UserMistake(f"There is no kind {kind!r}{nearest(kind, list(GIVEN))}.")
    return importlib.import_module(f"alseg.testing.{kind}s")
