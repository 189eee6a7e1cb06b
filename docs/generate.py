"""Write the pages that are made from code: `python docs/generate.py`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from alseg.config import LISTS, PIECES, RunConfig, recipe
from alseg.options import describe, plain
from alseg.plugins import Registry, load_plugins
from alseg_pixelpick.recipes import FROM_CODE, RECIPES

HEADER = """# Settings

Made by `python docs/generate.py`. A setting is given as `-o NAME=VALUE`, in a TOML file (`--config FILE`, dotted names
as tables), or by its own flag. What a recipe does not set keeps its default. `size` sets `train.size` and
`query.size`; `evaluate.size` follows `query.size` unless it is given. Sizes are HxW.

| setting | takes | default | recipe `camvid` | recipe `shapes` |
| --- | --- | --- | --- | --- |
"""


def settings_page(registry: Registry) -> str:
    """docs/settings.md."""
    recipes = [recipe(registry, name) for name in ("camvid", "shapes")]
    rows = []
    for name, kind, default in _settings(RunConfig, ""):
        values = [_shown(default), *(_shown(given[name]) if name in given else "" for given in recipes)]
        rows.append(f"| `{name}` | {describe(kind)} | {' | '.join(values)} |\n")
    text = HEADER + "".join(rows) + "\n# Pieces and their options\n\n| kind | name | option | takes | default |\n"
    text += "| --- | --- | --- | --- | --- |\n"
    for kind in (*PIECES, *LISTS.values()):
        for piece in sorted(registry.of(kind), key=lambda piece: piece.name):
            options = [option.describe() for option in piece.options().values()]
            for option in options or [{"name": "", "type": "", "default": "", "required": False}]:
                default = "must be given" if option["required"] else _shown(option["default"])
                prefix = piece.name if kind in LISTS.values() else kind
                option_name = f"`{prefix}.{option['name']}`" if option["name"] else ""
                name = f"{piece.name}:NAME" if piece.is_modifier else piece.name
                text += f"| {kind} | `{name}` | {option_name} | {option['type']} | {default} |\n"
    return text


RECIPES_HEADER = """# Recipes

Made by `python docs/generate.py`. The settings of the paper's experiments, as `--recipe NAME` or by the dataset's name.
Numbers are from the paper's supplement; those marked (c) are from the published code, where the paper is silent. What
is not listed keeps its default in [settings.md](settings.md).

Two more things are as published: a model starts again from the pretrained encoder in each round, and the pixels of the
first round are uniform over the candidates. Two differ unless asked for: labels are moved exactly with their image
(`-o augment.labels=nearest` resizes them by nearest neighbour, which at scale 0.5 loses three in four), and the figure
reported is the last epoch's on val (`--protocol paper` adds `paper_miou` and `paper_epoch`, the best epoch on test).

"""


def recipes_page(registry: Registry) -> str:
    """docs/recipes.md."""
    names = [name for name in RECIPES if name != "default"]
    flat = {name: recipe(registry, name) for name in names}
    text = RECIPES_HEADER + f"| setting | {' | '.join(f'`{name}`' for name in names)} |\n"
    text += "| --- |" + " --- |" * len(names) + "\n"
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        mark = " (c)" if key in FROM_CODE else ""
        values = [f"{_shown(settings[key])}{mark}" if key in settings else "" for settings in flat.values()]
        text += f"| `{key}` | {' | '.join(values)} |\n"
    return text


def _settings(kind: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        if field.name in PIECES:
            continue
        if field.name in LISTS:
            found.append((prefix + field.name, tuple[str, ...] | None, None))
            continue
        if is_dataclass(hints[field.name]):
            found += _settings(hints[field.name], f"{prefix}{field.name}.")
        else:
            default = "the dataset's" if field.name == "recipe" else field.default
            found.append((prefix + field.name, hints[field.name], default))
    return found


def _shown(value: Any) -> str:
    value = plain(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


PAGES = {"settings.md": settings_page, "recipes.md": recipes_page}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (Path(__file__).parent / page).write_text(make(load_plugins(third_party=False)))
