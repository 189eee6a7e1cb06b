"""The trackers of a run: what its settings say of them, other ones in their place, and the objects that hear of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from alseg.config import RunConfig, flatten
from alseg.errors import AlsegError, UserMistake
from alseg.hints import command, plugin_hint
from alseg.names import nearest
from alseg.plugins import Registry
from alseg.several import Choice, lists_of, names_in
from alseg.store import RunFolder


def title_of(name: str) -> str:
    """What a tracker is called in a run and its messages, before its distribution."""
    return f"tracker {name!r}"


def trackers_of(registry: Registry, choices: Sequence[Choice]) -> dict[str, Any]:
    """Trackers by what they are called; AlsegError for one that cannot be built, or cannot hear of a run."""
    built = {}
    for choice in choices:
        piece = registry.find("tracker", choice.name)
        built[f"{title_of(choice.name)} of {piece.plugin.distribution}"] = piece.build(choice.options)
    with registry.joined_by(built):
        return built


def trackers_in(registry: Registry, settings: Mapping[str, Any]) -> tuple[Choice, ...]:
    """The trackers of a stored run's settings, nested as run.toml has them."""
    names = names_in("trackers", settings.get("trackers"))
    return _trackers(registry, names, flatten({name: settings.get(name, {}) for name in names}))


def without_trackers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings but for the trackers and their options."""
    mine = ("trackers", *names_in("trackers", settings.get("trackers")))
    return {key: value for key, value in settings.items() if key not in mine}


def only_trackers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of stored settings the trackers and their options; empty where there are none."""
    names = names_in("trackers", settings.get("trackers"))
    return {key: settings.get(key) for key in ("trackers", *names)} if names else {}


def with_trackers(
    registry: Registry,
    settings: Mapping[str, Any],
    trackers: Sequence[str] | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A stored run's settings with other trackers (None: those it has) or other options of theirs.

    options: NAME.OPTION -> value; trackers that stay keep what is not given. Raises UserMistake for an unknown
    tracker, and for an option that is none of a tracker's.
    """
    if trackers is None and not options:
        return dict(settings)
    before = names_in("trackers", settings.get("trackers"))
    names, given = before if trackers is None else names_in("trackers", trackers), flatten(options or {})
    heads = [name.replace("-", "_") for name in names]
    for key in given:
        if not any(key.startswith(f"{head}.") for head in heads):
            lacks = nearest(key, [f"{head}." for head in heads]) or "; it has no tracker"
            raise UserMistake(f"{key!r} is no option of a tracker of the run, which alone can be changed{lacks}.")
    kept = flatten({name: settings.get(name, {}) for name in names if name in before})
    chosen = _trackers(registry, names, kept | given)
    listed = {"trackers": list(names)} if names else {}
    return without_trackers(settings) | listed | {choice.name: choice.written() for choice in chosen}


def check_trackers(registry: Registry, folder: RunFolder, settings: Mapping[str, Any]) -> None:
    """UserMistake where a tracker's plugin is not there, with how to do without."""
    for name in names_in("trackers", settings.get("trackers")):
        try:
            registry.find("tracker", name)
        except UserMistake as error:
            raise UserMistake(
                f"{error}{plugin_hint(settings.get('record'), folder.path)} {_untracked(registry, folder)}."
            ) from error


def stored_trackers(registry: Registry, folder: RunFolder, choices: Sequence[Choice]) -> dict[str, Any]:
    """The trackers of a run that goes on, in order; where one cannot be had, how to do without."""
    try:
        return trackers_of(registry, choices)
    except AlsegError as error:
        raise type(error)(f"{str(error).rstrip('.')}; {_untracked(registry, folder)}.") from error


def _untracked(registry: Registry, folder: RunFolder) -> str:
    return f"{command(registry.files, 'resume', folder.path, '--trackers', 'none')} goes on without trackers"


def _trackers(registry: Registry, names: Sequence[str], flat: Mapping[str, Any]) -> tuple[Choice, ...]:
    lists, _ = lists_of(registry, {"trackers": list(names), **flat}, get_type_hints(RunConfig), ("tracker",))
    return lists["trackers"]
