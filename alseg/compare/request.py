"""A comparison as somebody asks for it: a TOML file's table `compare`, and flags over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alseg.compare.study import Grid
from alseg.config import flatten
from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.settings_file import read_toml, read_toml_table

KEYS = ("title", "baseline", "seeds", "axes", "strategies", "full_supervision", "ask_only", "published")
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Request:
    """What to compare and where to run it.

    toml, flags: settings of all runs, flat. insists: whether the baseline is one of the grid's; a file's need not be
    where flags narrow its grid. published: figures to stand beside ours, as the file has them.
    """

    grid: Grid
    toml: Mapping[str, Any] = field(default_factory=dict)
    flags: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    baseline: str | None = None
    insists: bool = False
    ask_only: bool = False
    published: Sequence[Mapping[str, Any]] = ()
    executor: str = "local"
    executor_options: Mapping[str, Any] = field(default_factory=dict)


def understood(
    configs: Sequence[Path],
    flags: Mapping[str, Any],
    *,
    acquirers: str | None = None,
    selectors: str | None = None,
    axes: Sequence[str] = (),
    seeds: str | None = None,
    full_supervision: bool | None = None,
    baseline: str | None = None,
    ask_only: bool = False,
    executor: str = "local",
    jobs: str | None = None,
    keep_models: bool = False,
) -> Request:
    """The files, later over earlier, and the flags over them; UserMistake where they make no sense."""
    table = _tables(configs)
    where = f"The table `compare` of {' and '.join(map(str, configs))}"
    varied = _axes(table.get("axes", {}), where)
    varied |= _flagged(axes, {"acquirer": acquirers, "selector": selectors})
    strategies = table.get("strategies", ())
    if not isinstance(strategies, list | tuple) or not all(isinstance(entry, Mapping) for entry in strategies):
        raise UserMistake(f"{where} gives each strategy as [[compare.strategies]] with its settings.")
    if acquirers or selectors:
        strategies = ()  # these on the command line take the place of the file's
    options = {name: value for name, value in flags.items() if name.startswith("executor.")}
    settings = {name: value for name, value in flags.items() if name not in options}
    for name in sorted(_lost(settings, varied)):
        raise UserMistake(f"{name} is given for all runs and by an axis: give one of them, or --axis {name}=VALUE.")
    inner = {name.removeprefix("executor."): value for name, value in options.items()}
    return Request(
        grid=Grid(
            axes=varied,
            strategies=tuple(strategies),
            seeds=_seeds(seeds if seeds is not None else table.get("seeds", 1)),
            full_supervision=bool(
                table.get("full_supervision", False) if full_supervision is None else full_supervision
            ),
        ),
        toml={name: value for config in configs for name, value in read_toml(config).items()},
        flags=settings | ({"keep_models": "all"} if keep_models else {}),
        title=str(table.get("title", "")),
        baseline=(table.get("baseline") if baseline is None else baseline) or None,
        insists=bool(baseline) or not (acquirers or selectors or axes),
        ask_only=ask_only or bool(table.get("ask_only", False)),
        published=_published(table.get("published", ()), where),
        executor=executor,
        executor_options=inner | ({"jobs": jobs} if jobs is not None else {}),
    )


def _tables(configs: Sequence[Path]) -> dict[str, Any]:
    """The files' tables `compare`, a key of a later one in place of an earlier one's; axes are added up."""
    merged: dict[str, Any] = {}
    for config in configs:
        table = read_toml_table(config, "compare")
        for name in table:
            if name not in KEYS:
                raise UserMistake(f"The table `compare` of {config} has no key {name!r}{nearest(name, KEYS)}.")
        axes = table.get("axes", {})
        if isinstance(axes, Mapping) and isinstance(merged.get("axes"), Mapping):
            table["axes"] = {**merged["axes"], **axes}
        merged |= table
    return merged


def _lost(settings: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> set[str]:
    """The settings of all runs in whose place axes are; not `size`, which is two settings, where they are of one."""
    stated = {name for name, value in settings.items() if value is not None}
    if {"train.size", "query.size"} <= stated and settings["train.size"] == settings["query.size"]:
        stated = stated - {"train.size", "query.size"} | {"size"}
    return stated & (axes.keys() | ({"train.size", "query.size"} if "size" in axes else set()))


def _flagged(axes: Sequence[str], pieces: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Setting -> values, of the flags; UserMistake for a setting that comes twice, of which one would be lost."""
    varied: dict[str, list[str]] = {}
    for name, values in map(_axis, axes):
        if name in varied:
            raise UserMistake(f"{name} is given by --axis twice: give one.")
        varied[name] = values
    for kind, text in pieces.items():
        if text is None:
            continue
        if kind in varied:
            raise UserMistake(f"{kind} is given by --{kind}s and by --axis: give one.")
        varied[kind] = _listed(f"--{kind}s", text)
    return varied


def _listed(flag: str, text: str) -> list[str]:
    """The words of a list with commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserMistake(f"{flag} takes names with commas between them, not {text!r}.")
    return list(dict.fromkeys(words))


def _axis(text: str) -> tuple[str, list[str]]:
    """KEY=A,B."""
    name, equals, values = text.partition("=")
    if not equals or not name.strip():
        raise UserMistake(f"--axis takes KEY=A,B, not {text!r}.")
    return name.strip().replace("-", "_"), _listed(f"--axis {name.strip()}", values)


def _axes(table: Any, where: str) -> dict[str, list[Any]]:
    """Setting -> values, of the file."""
    if not isinstance(table, Mapping):
        raise UserMistake(f"{where} gives its axes as a table, setting = [value, value].")
    axes = flatten(table)
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserMistake(f"{where}: the axis {name} takes a list of values.")
    return axes


def _seeds(value: Any) -> tuple[int, ...]:
    """A number of seeds from 0 on, or the seeds themselves."""
    if isinstance(value, str):
        parts = value.strip().removesuffix(",").split(",")
        numbers = [int(part) if part.strip().isdecimal() else -1 for part in parts]
        value = numbers if "," in value else numbers[0]
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_SEEDS:
        return tuple(range(value))
    if isinstance(value, list) and value and all(type(seed) is int and seed >= 0 for seed in value):
        return tuple(dict.fromkeys(value))
    raise UserMistake("--seeds takes a number of seeds from 1 on, such as 5, or the seeds themselves: 0,3,7.")


def _published(entries: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, Mapping) for entry in entries):
        raise UserMistake(f"{where} gives each published figure as [[compare.published]].")
    return tuple(entries)
