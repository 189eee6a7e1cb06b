"""One typed configuration of a run: defaults <- recipe <- TOML <- flags.

A setting has a dotted name, `train.epochs`; a piece's option is `selector.top`, and `selector` alone its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from alseg.calling import mistaken
from alseg.errors import AlsegError, UserMistake
from alseg.names import nearest
from alseg.opened import open_dataset, whose
from alseg.options import Between, Longer, Size, convert
from alseg.pieces import Piece, settings_of
from alseg.plugins import Registry
from alseg.settings import Augmentation, Count, PassSettings, TrainSettings, TrustSettings
from alseg.several import (
    LISTS,
    Choice,
    by_one_name,
    lists_of,
    names_in,
    options_under,
    others,
    spellings,
    written,
)

PER_IMAGE = ("first_pixels", "pixels_per_round", "budget")
POOL = ("pool_pixels_per_round", "cap")
PIECES = ("dataset", "model", "acquirer", "selector", "oracle")
NAMED = (*PIECES, "recipe")  # settings that are a piece's name; its options are NAME.OPTION


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run."""

    dataset: Choice
    model: Choice
    acquirer: Choice
    selector: Choice
    oracle: Choice
    recipe: Choice
    terms: tuple[Choice, ...] = ()  # what is trained on besides the labels
    trackers: tuple[Choice, ...] = ()  # where the run's figures go besides its folder
    first_pixels: Count = 10
    pixels_per_round: Count = 10
    budget: Count = 100
    pool_pixels_per_round: Count | None = None  # over all images together, instead of the three above
    cap: Count | None = None  # of these in one image; none: four times an image's even share
    labels: Literal["points", "all"] = "points"  # all: full supervision, the upper line
    rounds: Count | None = None
    start_from: Path | None = None  # labels that round 0 trains on, instead of asking at random
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    split: Literal["val", "test"] | None = None
    protocol: Literal["honest", "paper"] = "honest"  # paper: also the best epoch on test
    void: Literal["skip", "ask"] | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    deterministic: bool = False
    report: bool = True  # written after rounds, and at the end
    keep_models: Literal["all", "last"] = "all"  # of the rounds
    cache: str = "auto"  # folder of decoded images; auto: the user's cache folder; none
    train: TrainSettings = field(default_factory=TrainSettings)
    augment: Augmentation = field(default_factory=Augmentation)
    query: PassSettings = field(default_factory=PassSettings)
    evaluate: PassSettings = field(default_factory=PassSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)

    def nested(self) -> dict[str, Any]:
        """As TOML holds it, None as "none"; `flatten` of it gives the same configuration again."""
        counted = POOL if self.pool_pixels_per_round is None else PER_IMAGE
        unused = (*LISTS, *counted, "start_from" if self.start_from is None else "first_pixels")
        nested = {name: value for name, value in _nested(self).items() if name not in unused}
        if not self.recipe.options:
            nested["recipe"] = self.recipe.name
        for setting in LISTS:
            chosen: tuple[Choice, ...] = getattr(self, setting)
            if chosen:
                nested[setting] = [choice.name for choice in chosen]
                nested |= {choice.name: choice.written() for choice in chosen}
        return nested


def _nested(settings: Any) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for entry in fields(settings):
        value = getattr(settings, entry.name)
        if isinstance(value, Choice):
            nested[entry.name] = {"name": value.name, **value.written()}
        elif is_dataclass(value) and not isinstance(value, Size | Longer):
            nested[entry.name] = _nested(value)
        else:
            nested[entry.name] = written(value)
    return nested


def flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables as dotted settings; a piece's table holds its `name` and its options.

    `size` is the training and query size; it takes the place of any other size that is not given beside it.
    """
    flat: dict[str, Any] = {}
    for key, value in ((name.replace("-", "_"), value) for name, value in _by_name(table).items()):
        if isinstance(value, Mapping):
            for inner, setting in _by_name(value).items():
                name = key if key in NAMED and inner == "name" else f"{key}.{inner.replace('-', '_')}"
                if isinstance(setting, Mapping):  # options of a part of a piece
                    flat |= {f"{name}.{option.replace('-', '_')}": each for option, each in _by_name(setting).items()}
                else:
                    flat[name] = setting
        else:
            flat[key] = value
    if (size := flat.pop("size", None)) is None:
        return flat
    convert("size", size, Size | None)  # which is said by its own name
    return {"train.size": size, "train.resize": None, "query.size": size, "evaluate.size": None, **flat}


def _by_name(table: Any) -> Mapping[str, Any]:
    if isinstance(table, Mapping) and all(isinstance(key, str) for key in table):
        return table
    raise UserMistake(f'Settings are values by name, such as {{"dataset": "camvid"}}, not {table!r:.80}.')


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """`-o KEY=VALUE` flags, flat."""
    return flatten(_assigned(pairs))


def _assigned(pairs: list[str]) -> dict[str, str]:
    flat = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserMistake(f"-o takes KEY=VALUE, not {pair!r}.")
        flat[key.strip().replace("-", "_")] = value.strip()
    return flat


def with_assignments(flags: Mapping[str, Any], pairs: list[str]) -> dict[str, Any]:
    """A command's flags and its -o; UserMistake where they give a setting two values."""
    given = _assigned(pairs)
    for name in flags.keys() & given.keys():
        alike = str.lower if isinstance(flags[name], bool) or name == "size" else str  # True, true; 60x80, 60X80
        if alike(str(flags[name])) != alike(given[name]):
            raise UserMistake(f"{name} is given as {flags[name]} and, by -o, as {given[name]}: give one of them.")
    return {**flags, **flatten(given)}


@dataclass(frozen=True)
class Resolved:
    """A configuration, the pieces it names, and the dataset, which had to be opened to find its recipe."""

    config: RunConfig
    pieces: Mapping[str, Piece]
    dataset: Any


def resolve(registry: Registry, toml: Mapping[str, Any], flags: Mapping[str, Any]) -> Resolved:
    """Defaults <- the recipe "default" <- the dataset's recipe (or the one asked for) <- TOML <- flags."""
    refuse_contradictions(toml, flags)
    user = _laid_over(registry, [toml, flags])
    base = recipe(registry, "default")
    asked, of_recipe = user.get("recipe"), options_under("recipe", user)
    chosen = recipe(registry, str(asked), of_recipe) if asked is not None else {}
    early = _laid_over(registry, [base, chosen, user])
    piece = registry.find("dataset", str(early["dataset"]))
    dataset = open_dataset(piece, piece.resolve(options_under("dataset", early)))
    name = str(asked) if asked is not None else getattr(dataset, "recipe", "default")
    # opening the dataset settled these; its recipe does not rename it
    settled = {k: v for k, v in early.items() if k == "dataset" or k.startswith("dataset.")}
    if asked is None:
        _check_recipe(registry, name, dataset)
    of_chosen = chosen or recipe(registry, name, of_recipe)
    suited = {k: v for k, v in of_chosen.items() if k.partition(".")[0] != "dataset"}
    rest = {k: v for k, v in user.items() if k not in settled}
    merged = _laid_over(registry, [base, suited, rest]) | settled | {"recipe": name}
    pieces = {kind: registry.find(kind, str(merged[kind])) for kind in PIECES}
    choices = {k: Choice(str(merged[k]), p.resolve(options_under(k, merged))) for k, p in pieces.items()}
    choices["recipe"] = Choice(name, registry.find("recipe", name).resolve(of_recipe))
    lists, rest = _lists(registry, merged)
    config = _typed(RunConfig, rest, choices | lists)
    counted = config.start_from is None and config.pool_pixels_per_round is None
    if counted and config.first_pixels > config.budget:
        raise UserMistake(
            f"first_pixels is {config.first_pixels}, more than the budget of {config.budget} pixels an image."
        )
    for key, (low, high) in (("scale", config.augment.scale), ("blur_sigma", config.augment.blur_sigma)):
        if low > high:
            raise UserMistake(f"augment.{key} goes from low to high, not from {low:g} to {high:g}.")
    for name, value in (("start_from gives", config.start_from), ("terms learn at", config.terms)):
        if value and config.labels == "all":
            raise UserMistake(f"{name} points; labels = all takes every pixel of the masks.")
    if "cap" in _stated(user) and config.pool_pixels_per_round is None:
        raise UserMistake("cap limits pool_pixels_per_round: give that as well.")
    return Resolved(config, pieces, dataset)


def _check_recipe(registry: Registry, name: str, dataset: Any) -> None:
    """UserMistake that names a dataset whose recipe is not registered."""
    try:
        registry.find("recipe", name)
    except UserMistake as error:
        raise mistaken(whose(dataset), str(error)) from error


def _laid_over(registry: Registry, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings laid over one another; where a layer names another piece, only options that it has are kept.

    So are those of a list's pieces that the layer's own list leaves out. A layer that counts pixels of each image
    takes the place of one that counts over the pool.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        layer = by_one_name(registry, NAMED, merged, layer)
        for kind in NAMED:
            name = layer.get(kind)
            if name is not None and merged.get(kind, name) != name:
                known = {kind, *(f"{kind}.{option}" for option in spellings(registry, kind, str(name)))}
                merged = {k: v for k, v in merged.items() if k.partition(".")[0] != kind or k in known}
        for setting in LISTS:
            if setting in layer:
                left = {*names_in(setting, merged.get(setting))} - {*names_in(setting, layer[setting])}
                heads = tuple(f"{name.replace('-', '_')}." for name in left)
                merged = {k: v for k, v in merged.items() if not k.startswith(heads)}
        if not (stated := _stated(layer)).isdisjoint(PER_IMAGE) and POOL[0] not in stated:
            merged = {k: v for k, v in merged.items() if k not in POOL}
        merged |= layer
    return merged


def _stated(layer: Mapping[str, Any]) -> set[str]:  # the settings that have a value
    return {name for name, value in layer.items() if value is not None and str(value).lower() != "none"}


def without_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A stored run's settings without its record of versions and data."""
    return {name: value for name, value in settings.items() if name != "record"}


def stored_config(registry: Registry, table: Mapping[str, Any], pieces: tuple[str, ...]) -> RunConfig:
    """The configuration of a stored run without opening its dataset; only the options of `pieces` are checked."""
    flat = flatten(without_record(table))
    missing = [kind for kind in PIECES if kind not in flat]
    if missing:
        raise UserMistake(f"it lacks the setting {missing[0]}")
    choices = {kind: Choice(str(flat.get(kind)), options_under(kind, flat)) for kind in NAMED}
    for kind in pieces:
        name = choices[kind].name
        choices[kind] = Choice(name, registry.find(kind, name).resolve(choices[kind].options))
    lists, flat = _lists(registry, flat, check=("term",) if "model" in pieces else ())
    return _typed(RunConfig, flat, {**choices, **lists})


def chosen(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Kind and name of every piece that a run takes."""
    yield from ((kind, getattr(config, kind).name) for kind in NAMED)
    yield from ((kind, choice.name) for setting, kind in LISTS.items() for choice in getattr(config, setting))


def named_by(config: RunConfig, user: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and name of those pieces that a user's own settings, flat, name; the others are a recipe's choice."""
    of = {kind: setting for setting, kind in LISTS.items()}
    return [(kind, name) for kind, name in chosen(config) if user.get(of.get(kind, kind)) is not None]


def with_origins(registry: Registry, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run's settings, nested, whose record says of which distributions its pieces under bare names are."""
    record = {name: value for name, value in settings["record"].items() if name != "pieces"}
    if origins := registry.origins_of(chosen(stored_config(registry, settings, ()))):
        record["pieces"] = origins
    return {**without_record(settings), "record": record}


def _lists(
    registry: Registry, flat: Mapping[str, Any], check: tuple[str, ...] = tuple(LISTS.values())
) -> tuple[dict[str, tuple[Choice, ...]], dict[str, Any]]:
    """The terms and trackers, those of the kinds `check` with checked options, and the other settings."""
    return lists_of(registry, flat, get_type_hints(RunConfig), check)


def refuse_contradictions(*layers: Mapping[str, Any]) -> None:
    """Settings that somebody gave together though one leaves nothing for the other to do."""
    for stated in map(_stated, layers):
        given = next((name for name in PER_IMAGE if name in stated), None)
        if POOL[0] in stated and given:
            raise UserMistake(f"{POOL[0]} counts over the whole pool, {given} for each image: give one of them.")
        if {"start_from", "first_pixels"} <= stated:
            raise UserMistake("first_pixels are asked at random in round 0, which start_from replaces: give one.")


def recipe(registry: Registry, name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a registered recipe, flat; AlsegError for what no run takes, but for options of pieces."""
    piece = registry.find("recipe", name)
    flat = flatten(settings_of(piece, options or {}))
    try:
        _typed(RunConfig, others(registry, flat), {kind: Choice("", {}) for kind in NAMED})
        for kind in flat.keys() & {*PIECES}:
            registry.find(kind, str(flat[kind]))
    except UserMistake as error:
        raise AlsegError(f"{piece.described()} gave what no run takes: {error}") from error
    return flat


def _typed(kind: type[RunConfig], flat: Mapping[str, Any], choices: Mapping[str, Any]) -> RunConfig:
    hints = get_type_hints(kind, include_extras=True)
    sections: dict[str, Any] = {n: hint for n, hint in hints.items() if is_dataclass(hint) and n not in choices}
    known = [name for name in hints if name not in sections]
    known += [f"{s}.{entry.name}" for s, section in sections.items() for entry in fields(section)]
    values: dict[str, Any] = dict(choices)
    parts: dict[str, dict[str, Any]] = {name: {} for name in sections}
    for key, value in flat.items():
        head, _, tail = key.partition(".")
        if head in NAMED:
            continue
        if key not in known:
            raise UserMistake(f"There is no setting {key!r}{nearest(key, [*known, *PIECES])}.")
        if tail:
            inner = get_type_hints(sections[head], include_extras=True)[tail]
            parts[head][tail] = convert(key, value, inner)
        else:
            values[key] = convert(key, value, hints[key])
    values |= {name: section(**parts[name]) for name, section in sections.items()}
    return kind(**values)
