"""A stored run whose files lie elsewhere now, whose weights or classes are others, or whose settings were changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alseg.config import RunConfig, flatten
from alseg.engine.calls import origin_of
from alseg.errors import UserMistake
from alseg.paths import expanded
from alseg.settings import COMPUTING
from alseg.several import Choice
from alseg.store import SETTINGS, RunFolder
from alseg.values import Classes

M = TypeVar("M")
PLACES = {"data": "dataset", "weights": "model"}  # options that say where something lies, and whose they are
ALONE = ("seed", "terms")  # settings that are no table
# a round's result hangs on them and its labels; on the size of queries where evaluation follows it
FIXED = ("dataset", "model", "train", "augment", "query", "evaluate", *ALONE)
IDLE = COMPUTING | {"query.batch_size", "evaluate.batch_size"} | {f"{kind}.{name}" for name, kind in PLACES.items()}


def moved(folder: RunFolder, settings: Mapping[str, Any], **places: Path | str | None) -> dict[str, Any]:
    """A run's settings, nested, with other places of its data or weights; None: where they are.

    UserMistake where the dataset or model of the run has no such place.
    """
    found = dict(settings)
    for name, place in places.items():
        if place is None:
            continue
        kind = PLACES[name]
        table = found.get(kind)
        if not isinstance(table, Mapping) or name not in table:
            raise UserMistake(f"The {kind} of the run {folder.path} reads no {name} of yours: leave --{name} out.")
        found[kind] = {**table, name: str(place if is_word(place) else expanded(place).absolute())}
    return found


def precision_of(settings: Mapping[str, Any]) -> str:
    """The precision that a stored run goes on in: the one it began with, where its settings leave that to the hardware.

    Any hardware computes in either, if slowly: a run has one precision wherever it goes on.
    """
    stated, record = str(settings.get("precision", "auto")), settings.get("record")
    begun = record.get("precision") if isinstance(record, Mapping) else None
    return str(begun) if stated == "auto" and begun in ("float32", "bfloat16") else stated


def is_word(place: Path | str) -> bool:
    """Whether weights are had without a file."""
    return str(place) in ("none", "default")


def same_weights(folder: RunFolder, model: M) -> M:
    """The model; UserMistake where its pretrained weights are not those that the run began with."""
    before, now = folder.settings().get("record", {}).get("weights", {}), origin_of(model)
    if "sha256" in before and before["sha256"] != now.get("sha256"):
        raise UserMistake(
            f"The weights {now.get('weights')} are not those that the run {folder.path} began with: give theirs with "
            "--weights, or start another run."
        )
    return model


def check_weights(folder: RunFolder, model: Choice, fresh: Callable[[], Any]) -> None:
    """UserMistake where weights that lie elsewhere now are not those that the run began with; fresh: with the new."""
    if folder.settings().get("model", {}).get("weights") != model.written().get("weights"):
        same_weights(folder, fresh())


def check_classes(folder: RunFolder, classes: Classes) -> None:
    """UserMistake where the dataset's classes are not those that the run began with, by which its labels are called."""
    record, now = folder.settings().get("record", {}), (list(classes.names), classes.void)
    before = (record.get("classes", now[0]), record.get("void_value", now[1]))
    if before != now:
        raise UserMistake(
            f"The classes are not those that the run began with ({named(*before)}): put them back, or "
            "export its labels and start another run with --start-from."
        )


def named(names: Iterable[object], void: object) -> str:
    """Classes in a sentence, the first few."""
    listed = [str(name) for name in names]
    return f"{', '.join(listed[:8])}{', ...' if len(listed) > 8 else ''}; void {void}"


def digests(config: RunConfig) -> dict[str, str]:
    """Of each table of settings that a round's result hangs on, eight characters that tell it from others.

    Options of terms are told with the list of terms.
    """
    flat = flatten(config.nested())
    owners = {name: name for name in FIXED} | {choice.name.replace("-", "_"): "terms" for choice in config.terms}
    mine: dict[str, list[tuple[str, str]]] = {name: [] for name in FIXED}
    idle = IDLE if config.evaluate.size is None else IDLE | {"query.size"}
    for name in sorted(flat.keys() - idle):
        if owner := owners.get(name.partition(".")[0]):
            mine[owner].append((name, str(flat[name])))
    return {table: hashlib.sha256(repr(values).encode()).hexdigest()[:8] for table, values in mine.items()}


def check_settings(folder: RunFolder, config: RunConfig) -> None:
    """UserMistake where a run's settings are no longer those that its last round was made with."""
    rounds = folder.rounds()
    before: Mapping[str, str] = rounds[-1].get("settings", {}) if rounds else {}
    changed = [name for name, digest in digests(config).items() if before.get(name, digest) != digest]
    if changed:
        if "evaluate" in changed:  # which says whether the size of queries counts
            changed = [name for name in changed if name != "query"]
        places = " and ".join(name if name in ALONE else f"[{name}]" for name in changed)
        raise UserMistake(
            f"{folder.path / SETTINGS} has other settings in {places} than the run's rounds so far were "
            "made with: put them back, or start another run."
        )
