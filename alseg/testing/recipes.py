"""What a recipe must do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from alseg.calling import described
from alseg.config import flatten, refuse_contradictions, resolve
from alseg.errors import AlsegError
from alseg.plugins import Registry, load_plugins
from alseg.several import options_under
from alseg.testing.calls import explains_wrong_calls
from alseg.testing.contract import Broken, Contract, Report, require
from alseg.testing.subjects import Subject, What, built, subject_of
from alseg.testing.tiny import NAME, PLUGIN


@dataclass(frozen=True)
class OfRecipe:
    """A recipe."""

    subject: Subject
    besides: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """What it says, flat."""
        return flatten(built(self.subject))


CONTRACT: Contract[OfRecipe] = Contract("recipe")


@explains_wrong_calls
def check_recipe(
    recipe: What,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    registry: Registry | None = None,
    settings: Mapping[str, Any] | None = None,
    skip: Mapping[str, str] | None = None,
) -> Report:
    """Check a recipe by the factory that is registered, or by its name; raises ContractError.

    settings: what its user must give besides, such as an option without default of a piece that it names.
    """
    subject = subject_of("recipe", recipe, options, name=name, registry=registry)
    return CONTRACT.judge(OfRecipe(subject, settings or {}), subject.name, skip)


@CONTRACT.check("builds", basic=True)
def _builds(of: OfRecipe) -> None:
    """The factory takes no option that must be given, and gives a mapping from settings to values."""
    made = built(of.subject)
    require(
        isinstance(made, Mapping) and all(isinstance(key, str) for key in made),
        f"the factory gave {described(made)}",
        'give a mapping such as {"train.epochs": 50, "augment": {"flip": 0.5}}',
    )
    of.subject.piece.resolve({})


@CONTRACT.check("settings")
def _settings(of: OfRecipe) -> None:
    """Its settings are known, its values fit them, and the pieces it names are there, with what they need."""
    registry, mine = of.subject.registry, ("recipe", of.subject.name)
    tiny = load_plugins([PLUGIN], third_party=False)
    beside = replace(
        registry,
        pieces=[
            *(piece for piece in registry.pieces if (piece.kind, piece.name) not in (mine, ("dataset", NAME))),
            replace(of.subject.piece, inner=None),
            *(piece for piece in tiny.of("dataset") if piece.name == NAME),
        ],
    )
    made = of.settings()
    require("recipe" not in made, "it names a recipe, which a run takes from its user alone", "leave it out")
    try:
        refuse_contradictions(made)
        if "dataset" in made:  # which is not opened here
            options = {**options_under("dataset", of.besides), **options_under("dataset", made)}
            registry.find("dataset", str(made["dataset"])).resolve(options)
        own = {f"recipe.{option}": value for option, value in of.subject.options.items()}
        resolve(beside, {}, {**of.besides, **own, "recipe": of.subject.name, "dataset": NAME})
    except AlsegError as error:
        mend = "see alseg's documentation, docs/settings.md, or `alseg plugins` for the pieces"
        raise Broken(str(error).rstrip("."), mend) from error


@CONTRACT.check("same")
def _same(of: OfRecipe) -> None:
    """It says the same each time, whatever became of what it gave before."""
    before = of.settings()
    made = built(of.subject)
    if isinstance(made, dict):
        made.clear()
    require(before == of.settings(), "it says something else the second time", "make the mapping anew in the factory")
