"""The names that a grid's strategies will have, told before there is a run."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from alseg.compare.comparison import unknown_baseline
from alseg.compare.groups import ASKERS, Strategy, pieces_name, settled, telling
from alseg.compare.study import Cell

# what a run's record, files or images decide, not its settings
DECIDED_LATER = r"(?:precision|void|split|model\.weights|start_from|training images|short rounds|dataset\.[^=]+)"


def check_baseline(cells: Sequence[Cell], random: Mapping[str, str], name: str) -> None:
    """UserMistake for a baseline that no strategy can be called once all runs of a grid are there.

    random: the pieces of the random baseline. What only a run decides may be in a name or not: there the name is let
    pass, and looked for when the runs are there.
    """
    strategies = _strategies(cells, random)
    known = []
    for one in strategies:
        sure = _sure(one, strategies)
        if re.fullmatch(_pattern(one, strategies, sure), name):
            return
        base = one.name or pieces_name(one)
        known.append(", ".join([base, *(f"{key}={one.settings[key]}" for key in sure)]))
    raise unknown_baseline(name, known)


def _strategies(cells: Sequence[Cell], random: Mapping[str, str]) -> list[Strategy]:
    """The strategies that ask, under the names that somebody gave; random all whose acquirer is chance's."""
    found = {}
    for cell in cells:
        flat = {key: value for key, value in settled(cell.settings).items() if not re.fullmatch(DECIDED_LATER, key)}
        if flat.get("labels") != "all":
            drawn = flat["acquirer"] == random.get("acquirer")
            found[cell.strategy, tuple(flat.items())] = Strategy(cell.strategy, flat, {}, is_random=drawn)
    return list(found.values())


def _sure(one: Strategy, strategies: Sequence[Strategy]) -> list[str]:
    """The settings that are in its name whatever its runs decide."""
    if not one.name:
        return telling(one, strategies)
    names = defaultdict(set)
    for other in strategies:
        names[tuple(other.settings.items())].add(other.name)
    if any(len(several) > 1 for several in names.values()):  # one of these names may be gone when they are grouped
        return []
    return telling(one, [other for other in strategies if other.name == one.name])


def _pattern(one: Strategy, strategies: Sequence[Strategy], sure: Sequence[str]) -> str:
    """What its name can be, as a regular expression."""
    given = "|".join(sorted({re.escape(other.name) for other in strategies if other.name}))
    base = rf"(?:{given})(?: / (?:{given}))*"  # seeds of unlike names that are one strategy
    if not one.name:
        acquirer, selector = (re.escape(text) for text in (one.acquirer, one.selector))
        base = rf"{acquirer}(?:, {selector}){'?' if one.is_random else ''}"
    options = {key for key in one.settings if key.partition(".")[0] in ASKERS and key not in ASKERS}
    later = rf"(?:, {DECIDED_LATER}=.*?)*"
    found = base + later
    for key in sorted({*sure, *telling(one, strategies), *options}):
        found += rf"(?:, {re.escape(f'{key}={one.settings[key]}')}){'' if key in sure else '?'}{later}"
    return found + r"(?: \(\d+\))?"
