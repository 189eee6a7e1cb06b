"""Writes the beginning of a plugin: an installable package with one piece, or with hooks, its tests and a README.

The templates are files of a package `my_piece` whose piece is called `my-piece`; writing one replaces these names.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import keyword
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import get_type_hints

from alseg.errors import UserMistake
from alseg.names import nearest
from alseg.paths import expanded
from alseg.registering import NOT_NAMES

KINDS = (
    *("dataset", "model", "acquirer", "selector", "oracle"),
    *("term", "tracker", "recipe", "executor", "modifier", "command", "hooks"),
)
# what is begun as another kind than it is registered as; what registers no piece as None
REGISTERED: dict[str, str | None] = {"modifier": "acquirer", "command": None, "hooks": None}
MODULE, PIECE = "my_piece", "my-piece"  # the names in the templates


def write_package(name: str, kind: str, out: Path | None = None) -> Path:
    """Write the package `name` with a piece of a kind into `out`, by default a folder of its name; that folder.

    Raises UserMistake for a kind that there is not, a name that no package or piece can have or that its code uses
    itself, a folder that is there.
    """
    if kind not in KINDS:
        raise UserMistake(f"There is no kind {kind!r}{nearest(kind, KINDS)}.")
    module = name.replace("-", "_")
    fits = re.fullmatch(r"[a-z]([a-z0-9_]*[a-z0-9])?", module) and module not in NOT_NAMES
    if not fits or keyword.iskeyword(module):
        raise UserMistake(f"A package cannot be called {name!r}: take small letters, digits and _, such as my_{kind}.")
    if module in _settings_beside(kind):
        raise UserMistake(f"{name!r} is what a setting of every run is called: take another name, such as my_{kind}.")
    if module == "alseg" or module.startswith("alseg_") or _is_installed(module):
        raise UserMistake(f"{name!r} is the name of a package that is there already: take another, such as my_{kind}.")
    texts = _texts(kind)
    if module in _names_in(texts):
        raise UserMistake(f"{name!r} means something else in the package's code: take another name, such as my_{kind}.")
    from alseg.writing import appearing

    place = Path(module) if out is None else expanded(out)
    if place.exists():
        raise UserMistake(f"{place} is there already: give another name, or another folder by --out.")
    with appearing(place) as folder:
        for path, text in texts.items():
            target = folder / _renamed(path, module)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed(text, module), "utf-8")
    return place


def _settings_beside(kind: str) -> set[str]:
    """Settings with which options of a piece, NAME.OPTION, would be mixed up."""
    from alseg.config import RunConfig
    from alseg.several import LISTS, RECORD

    return {*get_type_hints(RunConfig), RECORD} if kind in LISTS.values() else set()


def _is_installed(module: str) -> bool:
    """Whether there is a module or a distribution of this name, which an installation would replace."""
    try:
        importlib.metadata.distribution(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return importlib.util.find_spec(module) is not None
    return True


def _renamed(text: str, module: str) -> str:
    return text.replace(MODULE, module).replace(PIECE, module.replace("_", "-"))


def _texts(kind: str) -> Mapping[str, str]:
    """The files of a package, path -> text."""
    common, own = (files("alseg.scaffold") / "templates" / name for name in ("common", kind))
    found = {path: text for folder in (common, own) for path, text in _walked(folder, "")}
    return {path.removesuffix(".template"): text.replace("KIND", kind) for path, text in found.items()}


def _names_in(texts: Mapping[str, str]) -> set[str]:
    """What the code calls its functions, parameters and variables, and what it imports."""
    trees = [ast.parse(text) for path, text in texts.items() if path.endswith(".py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {str(getattr(node, field, MODULE)) for node in nodes for field in ("id", "arg", "name")} - {MODULE}


def _walked(folder: Traversable, prefix: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _walked(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name, entry.read_text("utf-8")
