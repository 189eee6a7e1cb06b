"""Figures that others published, as a comparison's file gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alseg.compare.page import Published
from alseg.errors import UserMistake

FORM = "[[compare.published]] takes strategy, source, protocol, and miou = { 20 = 50.8, all = 58.2 } in %, std likewise"


def published_figures(entries: Sequence[Mapping[str, Any]]) -> list[Published]:
    """One figure for each budget; UserMistake where an entry makes no sense."""
    figures = []
    for entry in entries:
        unknown = entry.keys() - {"strategy", "source", "protocol", "miou", "std"}
        miou, spread = entry.get("miou"), entry.get("std", {})
        if unknown or not isinstance(miou, Mapping) or not isinstance(spread, Mapping):
            raise UserMistake(f"{FORM}.")
        for budget, value in miou.items():
            figures.append(
                Published(
                    strategy=None if entry.get("strategy") is None else str(entry["strategy"]),
                    pixels_per_image=None if budget == "all" else _pixels(budget),
                    miou=_number(value),
                    std=_number(spread[budget]) if budget in spread else None,
                    source=str(entry.get("source", "")),
                    protocol=str(entry.get("protocol", "")),
                )
            )
    return figures


def _pixels(budget: Any) -> float:
    pixels = _number(budget)
    if not pixels > 0:
        raise UserMistake(f"{FORM}; the budget {budget!r} must be above 0.")
    return pixels


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserMistake(f"{FORM}; {value!r} is no number.") from error
