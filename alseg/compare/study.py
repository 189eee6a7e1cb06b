"""A grid of runs: which settings vary, and each run's place on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alseg.attending import is_person
from alseg.compare.groups import ALL_PIXELS, ASKERS, IDLE
from alseg.config import NAMED, Resolved, RunConfig, flatten, recipe, resolve
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.plugins import Registry
from alseg.schedule import Schedule
from alseg.trackers import trackers_of

BASELINE = "baseline"  # the recipe of what every strategy is compared with
# what a run does only after its first round, but for the size of queries where evaluation follows it
LATER = ("acquirer", "selector", "pixels_per_round", "budget", "rounds", "query")
# what full supervision does without
WITHOUT_POINTS = (*LATER, "first_pixels", "pool_pixels_per_round", "cap", "start_from", "oracle", "void", "trust")
QUERY_SIZE = "query.size"  # which evaluation follows, unless it has a size of its own
IN_STUDIES: Mapping[str, Any] = {"report": False, "keep_models": "last"}  # unless somebody says otherwise
LONGEST_NAME = 120  # bytes


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
    rounds: how many it has. given: the settings that lead to it, flat. pixels: what its rounds ask of each image; empty
    where that is no setting.
    """

    name: str
    strategy: str
    settings: Mapping[str, Any]
    first: str
    rounds: int
    given: Mapping[str, Any]
    pixels: Sequence[int] = ()


def cells(registry: Registry, grid: Grid, toml: Mapping[str, Any], flags: Mapping[str, Any]) -> list[Cell]:
    """The runs of a grid, seed by seed, so that what is finished early can be compared.

    Raises UserMistake for settings that no run can have.
    """
    base = {**IN_STUDIES, **toml, **flatten(flags)}
    for settings in (base, grid.axes, *grid.strategies):
        _refuse_what_compares_nothing(settings, base)
    places = list(_places(grid, recipe(registry, BASELINE)))
    _check_options(registry, base, [place.settings for place in places])
    opened, built = [], set[str]()
    for place in places:  # each opens the data once, whatever the number of seeds
        place, resolved, given = _opened(registry, base, place, max(grid.seeds))
        _check_pieces(registry, resolved, built)
        opened.append((place, resolved.config, given))
    found: dict[str, Cell] = {}
    for seed, (place, config, given) in itertools.product(grid.seeds, opened):
        cell = _cell(place, replace(config, seed=seed), {**given, "seed": seed})
        known = found.setdefault(cell.name, cell)
        if known.settings != cell.settings:
            raise UserMistake(f"Two runs of the grid would be called {cell.name}: give its strategies names.")
    return list(found.values())


def _opened(
    registry: Registry, base: Mapping[str, Any], place: _Place, seed: int
) -> tuple[_Place, Resolved, dict[str, Any]]:
    """A place in the grid, what its settings lead to, and these; without a size of queries that nothing hangs on."""
    suited, varied = _suited(registry, base, place.settings), flatten(place.settings)
    resolved = resolve(registry, suited, {**varied, "seed": seed})
    config = resolved.config
    if QUERY_SIZE in place.other and config.labels == "all" and config.evaluate.size is not None:
        rest = {name: value for name, value in place.other.items() if name != QUERY_SIZE}
        return _opened(registry, base, replace(place, other=rest), seed)
    return place, resolved, {**suited, **varied}


def _refuse_what_compares_nothing(settings: Mapping[str, Any], base: Mapping[str, Any]) -> None:
    """UserMistake for settings that a comparison makes itself, and for axes and strategies that change no result."""
    if "seed" in settings:
        raise UserMistake("A comparison counts its seeds itself: give --seeds instead of a seed.")
    if settings is base:
        return
    for name in sorted(IDLE - {"seed", "recipe"}):
        if name in settings:
            raise UserMistake(f"Runs that differ in {name} alone give the same figures: give one value of it for all.")
    if "labels" in settings:
        raise UserMistake("Full supervision is one line beside all strategies: give --full-supervision.")


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
    kinds = {name: values for name, values in grid.axes.items() if name in ASKERS}
    others = {name: values for name, values in grid.axes.items() if name not in kinds}
    strategies = [flatten(strategy) for strategy in grid.strategies]
    if kinds or not strategies:
        crossed = [dict(zip(kinds, values, strict=True)) for values in itertools.product(*kinds.values())]
        strategies = [*crossed, *strategies]
    chances = _chances(strategies, chance)
    for values in itertools.product(*others.values()):
        other = dict(zip(others, values, strict=True))
        # an axis of an option of what asks is none of chance's, which then comes once for all its values
        of_chance = {name: value for name, value in other.items() if name.partition(".")[0] not in ASKERS}
        yield from (_Place(one, of_chance) for one in chances)
        for strategy in strategies:
            own = {name: value for name, value in strategy.items() if name != "name"}
            yield _Place(own, other, str(strategy.get("name", "")))
        if grid.full_supervision:
            kept = {k: v for k, v in other.items() if k == QUERY_SIZE or k.partition(".")[0] not in WITHOUT_POINTS}
            yield _Place({**chance, "labels": "all"}, kept, ALL_PIXELS)


def _chances(strategies: Sequence[Mapping[str, Any]], chance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Chance for each way of training that a strategy has, where it is not among them already."""
    missing: list[dict[str, Any]] = []
    for strategy in [{}, *strategies]:
        rest = {k: v for k, v in strategy.items() if k.partition(".")[0] not in (*ASKERS, "name")}
        twin = {**chance, **rest}
        there = [
            other
            for other in [*strategies, *missing]
            # the acquirer draws, whatever a selector makes of that
            if other.get("acquirer") == chance.get("acquirer") and not other.get("name")
            if {k: v for k, v in other.items() if k.partition(".")[0] not in ASKERS} == rest
        ]
        if not there:
            missing.append(twin)
    return missing


def _cell(place: _Place, config: RunConfig, given: Mapping[str, Any]) -> Cell:
    settings, seed = config.nested(), config.seed
    own = [f"{name}={_word(value)}" for name, value in place.strategy.items() if name not in ASKERS]
    words = [place.name] if place.name else [config.acquirer.name, config.selector.name, *own]
    name = _folder_name(",".join([*words, *(f"{k}={_word(v)}" for k, v in place.other.items()), f"seed={seed}"]))
    if config.labels == "all":
        return Cell(name, "", settings, "", 1, given)
    follows = config.evaluate.size is None and config.query.size is not None
    before = {**settings, QUERY_SIZE: settings["query"]["size"]} if follows else settings
    rounds = Schedule(config).total_rounds()
    pixels = Schedule(config).per_image(rounds) if config.pool_pixels_per_round is None else ()
    return Cell(name, place.name, settings, f"seed={seed},{key(before, LATER)}", rounds, given, pixels)


def _check_pieces(registry: Registry, resolved: Resolved, built: set[str]) -> None:
    """Build what asks, answers and hears of it, each choice once.

    UserMistake for what cannot work, or would ask a person.
    """
    config, dataset = resolved.config, resolved.dataset
    if f"trackers {config.trackers}" not in built:
        built.add(f"trackers {config.trackers}")
        trackers_of(registry, config.trackers)
    for kind in ("acquirer", "selector", "oracle"):
        choice = getattr(config, kind)
        if f"{kind} {choice}" in built:
            continue
        built.add(f"{kind} {choice}")
        given = {"images": dataset.images("train"), "classes": dataset.classes, "run": ""} if kind == "oracle" else {}
        piece = resolved.pieces[kind].build(choice.options, **given, seed=config.seed)
        if is_person(piece):
            raise UserMistake(
                f"The {kind} {choice.name!r} is a person, whom a grid would ask in every run at once: make such runs "
                "by `alseg run`, and compare them by `alseg compare RUN...`."
            )


def _word(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _folder_name(words: str) -> str:
    """Words as a folder may be called."""
    plain = re.sub(r"[^\w.,=+-]+", "-", words)
    if len(plain.encode()) <= LONGEST_NAME:
        return plain
    kept = plain.encode()[: LONGEST_NAME - 9].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"


def key(settings: Mapping[str, Any], without: Sequence[str]) -> str:
    """Eight letters for all settings but some: equal settings have equal letters."""
    kept = {name: value for name, value in settings.items() if name not in without and name not in IN_STUDIES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def _suited(registry: Registry, base: Mapping[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    """The base without options that the pieces of this place in the grid do not have."""
    suited = dict(base)
    for kind in NAMED:
        if kind not in varied or varied[kind] == base.get(kind):
            continue
        known = registry.find(kind, str(varied[kind])).spellings()
        for name in [name for name in suited if name.startswith(f"{kind}.")]:
            if name.removeprefix(f"{kind}.") not in known:
                del suited[name]
    return suited


def _check_options(registry: Registry, base: Mapping[str, Any], places: Sequence[Mapping[str, Any]]) -> None:
    """UserMistake for an option that no piece of the grid has."""
    for kind in NAMED:
        names = {str(place[kind]) for place in places if kind in place}
        if not names or any(kind not in place for place in places):
            continue
        known = {option for name in names for option in registry.find(kind, name).spellings()}
        for name in base:
            head, _, option = name.partition(".")
            if head == kind and option and option not in known:
                raise UserMistake(f"No {kind} of the grid has an option {option!r}{nearest(option, known)}.")
