"""A grid of runs: which settings vary, and each run's place on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alseg.config import PIECES, flatten, recipe, resolve
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.plugins import Registry

BASELINE = "baseline"  # the recipe of what every strategy is compared with
# what a run does only after its first round
LATER = ("acquirer", "selector", "pixels_per_round", "budget", "rounds", "query")
# what full supervision does without
WITHOUT_POINTS = (*LATER, "first_pixels", "pool_pixels_per_round", "cap", "start_from", "oracle", "void", "trust")
IN_STUDIES: Mapping[str, Any] = {"report": False, "keep_models": "last"}  # unless somebody says otherwise
LONGEST_NAME = 120
ALL_PIXELS = "all-pixels"


@dataclass(frozen=True)
class Grid:
    """What varies: axes are dotted settings with their values, strategies are settings that go together.

    A strategy may have a `name`. Chance is always there. full_supervision: also runs on every pixel, the upper
    line.
    """

    axes: Mapping[str, Sequence[Any]]
    strategies: Sequence[Mapping[str, Any]] = ()
    seeds: Sequence[int] = (0,)
    full_supervision: bool = False


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a grid.

    name: of its folder. strategy: the name that somebody gave, or "". settings: every setting, as run.toml
    holds it. first: a name of the first round that it shares with others, or "" where it shares none.
    rounds: how many it has. given: the settings that lead to it, flat.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any]
    first: str
    rounds: int
    given: Mapping[str, Any]


def cells(registry: Registry, grid: Grid, toml: Mapping[str, Any], flags: Mapping[str, Any]) -> list[Cell]:
    """The runs of a grid, seed by seed, so that what is finished early can be compared.

    Raises UserMistake for settings that no run can have.
    """
    base = {**IN_STUDIES, **toml, **flatten(flags)}
    if "seed" in base:
        raise UserMistake("A comparison counts its seeds itself: give --seeds instead of a seed.")
    places = list(_places(grid, recipe(registry, BASELINE)))
    _check_options(registry, base, [place.settings for place in places])
    found: dict[str, Cell] = {}
    for seed, place in itertools.product(grid.seeds, places):
        cell = _cell(registry, _suited(registry, base, place.settings), place, seed)
        known = found.setdefault(cell.name, cell)
        if known.settings != cell.settings:
            raise UserMistake(f"Two runs of the grid would be called {cell.name}: give its strategies names.")
    return list(found.values())


@dataclass(frozen=True)
class _Place:
    """A strategy and the other axes' values."""

    strategy: Mapping[str, Any]
    other: Mapping[str, Any]
    name: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        return {**self.strategy, **self.other}


def _places(grid: Grid, chance: Mapping[str, Any]) -> Iterator[_Place]:
    """The places in the grid but for the seed: chance, the strategies, full supervision, with each other axis."""
    kinds = {name: values for name, values in grid.axes.items() if name in ("acquirer", "selector")}
    others = {name: values for name, values in grid.axes.items() if name not in kinds}
    strategies = [flatten(strategy) for strategy in grid.strategies]
    if kinds or not strategies:
        crossed = [dict(zip(kinds, values, strict=True)) for values in itertools.product(*kinds.values())]
        strategies = [*crossed, *strategies]
    # the acquirer draws, whatever a selector makes of that
    if not any(s.get("acquirer") == chance.get("acquirer") and not s.get("name") for s in strategies):
        strategies = [dict(chance), *strategies]
    for values in itertools.product(*others.values()):
        other = dict(zip(others, values, strict=True))
        for strategy in strategies:
            own = {name: value for name, value in strategy.items() if name != "name"}
            yield _Place(own, other, str(strategy.get("name", "")))
        if grid.full_supervision:
            without = {name: value for name, value in other.items() if name.partition(".")[0] not in WITHOUT_POINTS}
            yield _Place({**chance, "labels": "all"}, without, ALL_PIXELS)


def _cell(registry: Registry, base: Mapping[str, Any], place: _Place, seed: int) -> Cell:
    varied = flatten({**place.settings, "seed": seed})
    config, given = resolve(registry, base, varied).config, {**base, **varied}
    settings = config.nested()
    own = [f"{name}={value}" for name, value in place.strategy.items() if name not in ("acquirer", "selector")]
    words = [place.name] if place.name else [config.acquirer.name, config.selector.name, *own]
    name = _folder_name(",".join([*words, *(f"{k}={v}" for k, v in place.other.items()), f"seed={seed}"]))
    if config.labels == "all":
        return Cell(name, place.name, settings, "", 1, given)
    return Cell(name, place.name, settings, f"seed={seed},{key(settings, LATER)}", config.total_rounds(), given)


def _folder_name(words: str) -> str:
    """Words as a folder may be called."""
    plain = re.sub(r"[^\w.,=+-]+", "-", words)
    if len(plain) <= LONGEST_NAME:
        return plain
    return f"{plain[: LONGEST_NAME - 9]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def key(settings: Mapping[str, Any], without: Sequence[str]) -> str:
    """Eight letters for all settings but some: equal settings have equal letters."""
    kept = {name: value for name, value in settings.items() if name not in without and name not in IN_STUDIES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _suited(registry: Registry, base: Mapping[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    """The base without options that the pieces of this place in the grid do not have."""
    suited = dict(base)
    for kind in PIECES:
        if kind not in varied or varied[kind] == base.get(kind):
            continue
        known = registry.find(kind, str(varied[kind])).options()
        for name in [name for name in suited if name.startswith(f"{kind}.")]:
            if name.removeprefix(f"{kind}.") not in known:
                del suited[name]
    return suited


def _check_options(registry: Registry, base: Mapping[str, Any], places: Sequence[Mapping[str, Any]]) -> None:
    """UserMistake for an option that no piece of the grid has."""
    for kind in PIECES:
        names = {str(place[kind]) for place in places if kind in place}
        if not names or any(kind not in place for place in places):
            continue
        known = {option for name in names for option in registry.find(kind, name).options()}
        for name in base:
            head, _, option = name.partition(".")
            if head == kind and option and option not in known:
                raise UserMistake(f"No {kind} of the grid has an option {option!r}{nearest(option, known)}.")
