"""The settings of a run, and the recipes."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from alseg.config import PIECES, RunConfig, recipe
from alseg.options import describe
from alseg.plugins import Registry
from alseg.several import LISTS
from alseg_pixelpick.recipes import FROM_CODE, RECIPES
from reference_pages.words import MADE, shown, table

SETTINGS = f"""# Settings

{MADE}
A setting is given as `-o NAME=VALUE`, in a TOML file (`--config FILE`, dotted names as tables), or by its own flag.
What a recipe does not set keeps its default. `size` sets `train.size` and `query.size`; `evaluate.size` follows
`query.size` unless it is given. Sizes are HxW. The options of pieces (`selector.top`, `model.encoder`) are settings
too: [pieces](reference/pieces.md). In TOML, a piece that has options has a table of its own and is named there, by
`name`; one that has none may be `acquirer = "margin"`, above all tables:

```toml
acquirer = "margin"

[dataset]
name = "folder"
data = "PHOTOS"
classes = ["road", "sky", "car"]

[train]
epochs = 20
```

"""
RECIPE_NAMES = f"""# Recipes

{MADE} The settings of the paper's experiments, as `--recipe NAME` or by the dataset's name.
Numbers are from the paper's supplement; those marked (c) are from the published code, where the paper is silent. What
is not listed keeps its default in [settings.md](settings.md).

Two more things are as published: a model starts again from the pretrained encoder in each round, and the pixels of the
first round are uniform over the candidates. Three differ unless asked for: labels are moved exactly with their image
(`-o augment.labels=nearest` resizes them by nearest neighbour, which at scale 0.5 loses three in four), the figure
reported is the last epoch's on val (`--protocol paper` adds `paper_miou` and `paper_epoch`, the best epoch on test),
and the engine computes in bfloat16 where that is faster and decodes at the labelled points alone (`--precision
float32`, `-o train.decode=dense`; [what that costs](performance.md)).

"""


def settings_page(registry: Registry) -> str:
    """docs/settings.md."""
    recipes = [recipe(registry, name) for name in ("camvid", "shapes")]
    rows = []
    for name, kind, default in _settings(RunConfig, ""):
        values = [shown(default), *(shown(given[name]) if name in given else "" for given in recipes)]
        rows.append([f"`{name}`", describe(kind), *values])
    return SETTINGS + table(["setting", "takes", "default", "recipe `camvid`", "recipe `shapes`"], rows)


def recipes_page(registry: Registry) -> str:
    """docs/recipes.md."""
    names = [name for name in RECIPES if name != "default"]
    flat = {name: recipe(registry, name) for name in names}
    rows = []
    for key in dict.fromkeys(key for settings in flat.values() for key in settings):
        mark = " (c)" if key in FROM_CODE else ""
        values = [f"{shown(settings[key])}{mark}" if key in settings else "" for settings in flat.values()]
        rows.append([f"`{key}`", *values])
    return RECIPE_NAMES + table(["setting", *(f"`{name}`" for name in names)], rows)


def _settings(kind: Any, prefix: str) -> list[tuple[str, Any, Any]]:
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in fields(kind):
        if field.name in PIECES:
            continue
        if field.name in LISTS:
            found.append((prefix + field.name, tuple[str, ...] | None, None))
            continue
        if field.name == "recipe":
            found.append((field.name, str, "the dataset's"))
        elif is_dataclass(hints[field.name]):
            found += _settings(hints[field.name], f"{prefix}{field.name}.")
        else:
            found.append((prefix + field.name, hints[field.name], field.default))
    return found
