"""The pieces of which a run takes several: training terms and trackers, each with options NAME.OPTION."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alseg.errors import AlsegError, UserMistake
from alseg.options import convert, plain
from alseg.plugins import Registry

LISTS = {"terms": "term", "trackers": "tracker"}  # settings that name several pieces, and their kind
RECORD = "record"  # the table of run.toml beside the settings


@dataclass(frozen=True)
class Choice:
    """A chosen piece and all its options."""

    name: str
    options: Mapping[str, Any]

    def written(self) -> dict[str, Any]:
        """Its options as TOML holds them, None as "none"."""
        return {name: written(value) for name, value in self.options.items()}


def written(value: Any) -> Any:
    """A value as TOML holds it, None as "none"."""
    if isinstance(value, tuple | list):
        return [written(part) for part in value]
    return "none" if value is None else plain(value)


def options_under(head: str, flat: Mapping[str, Any]) -> dict[str, Any]:
    """The settings HEAD.OPTION by their option."""
    prefix = f"{head}."
    return {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}


def by_one_name(
    registry: Registry, kinds: Iterable[str], merged: Mapping[str, Any], layer: Mapping[str, Any]
) -> dict[str, Any]:
    """A layer of settings whose options that are given as part.option bear the names by which their pieces know them.

    merged: what lies beneath it, and may name the pieces.
    """
    found = dict(layer)
    for kind in {key.partition(".")[0] for key in layer if key.count(".") > 1}.intersection(kinds):
        name, given = layer.get(kind, merged.get(kind)), options_under(kind, layer)
        if name is not None and spellings(registry, kind, str(name)):
            named = registry.find(kind, str(name)).by_one_name(given)
            found = {key: value for key, value in found.items() if not key.startswith(f"{kind}.")}
            found |= {f"{kind}.{option}": value for option, value in named.items()}
    return found


def spellings(registry: Registry, kind: str, name: str) -> Sequence[str]:
    """The names by which options of a piece may be given."""
    piece = registry.find(kind, name)
    try:
        return list(piece.spellings())
    except AlsegError:
        return []  # a broken piece; that is said where its options are taken


def names_in(setting: str, value: Any) -> tuple[str, ...]:
    """The names that a list of pieces gives: A,B as text or a list; none."""
    return convert(setting, value, tuple[str, ...] | None) or ()


def heads_of(registry: Registry, kind: str) -> dict[str, str]:
    """What the options of a kind's pieces begin with, NAME and DISTRIBUTION:NAME or FILE:NAME, and the name meant."""
    names = {}
    for piece in registry.of(kind):
        for prefix in ("", f"{piece.plugin.prefix}:", f"{piece.plugin.distribution}:"):
            names[f"{prefix}{piece.name}".replace("-", "_")] = f"{prefix}{piece.name}"
    return names


def others(registry: Registry, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without these lists, and without options of pieces that may be in one."""
    heads = {head for kind in LISTS.values() for head in heads_of(registry, kind)}
    heads |= {name.replace("-", "_") for setting in LISTS for name in names_in(setting, flat.get(setting))}
    begins = tuple(f"{head}." for head in heads)
    return {key: value for key, value in flat.items() if key not in LISTS and not key.startswith(begins)}


def lists_of(
    registry: Registry, flat: Mapping[str, Any], taken: Iterable[str], check: tuple[str, ...]
) -> tuple[dict[str, tuple[Choice, ...]], dict[str, Any]]:
    """The pieces of which several may be taken, with their options, and the other settings.

    taken: names that no piece may have, since its options would be mixed up with settings. check: the kinds whose
    options are checked.
    """
    rest, lists, settings, seen = dict(flat), {}, {*taken, RECORD}, set[str]()
    for setting, kind in LISTS.items():
        chosen = []
        for name in names_in(setting, rest.pop(setting, None)):
            head = name.replace("-", "_")
            if head in settings:
                whole = registry.full_name(registry.find(kind, name))
                raise UserMistake(f"The {kind} {name!r} has the name of a setting: write {whole}.")
            if head in seen:
                raise UserMistake(f"The {kind} {name!r} is given twice.")
            seen.add(head)
            options = options_under(head, rest)
            rest = {key: value for key, value in rest.items() if not key.startswith(f"{head}.")}
            piece = registry.find(kind, name)
            chosen.append(Choice(name, piece.resolve(options, name) if kind in check else options))
        lists[setting] = tuple(chosen)
    for setting, kind in LISTS.items():
        for head, name in heads_of(registry, kind).items():
            if options_under(head, rest):
                raise _not_taken(setting, kind, name, [choice.name for choice in lists[setting]])
    return lists, rest


def _not_taken(setting: str, kind: str, name: str, taken: list[str]) -> UserMistake:
    """Options of a piece that is not taken, or not by that name."""
    whole = next((other for other in taken if other.endswith(f":{name}")), None)
    if whole is not None:
        return UserMistake(f"The {kind} {name!r} is taken as {whole!r}: write its options -o {whole}.OPTION=VALUE.")
    return UserMistake(f"There are options of the {kind} {name!r}, which is not taken: -o {setting}={name}.")
