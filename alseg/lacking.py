"""What to do where a plugin's import finds no module."""

from __future__ import annotations

import importlib.metadata
import re
from collections import Counter
from pathlib import Path

PACKAGE_FILE = "__init__.py"
FILE_MODULE = "alseg_plugin_file_"  # what the modules of single files are called, before the file's name


def install_hint(error: ImportError, distribution: str) -> str:
    """How to install what an import lacked: by the extra or requirement of the distribution that names it."""
    library = _normal((error.name or "").partition(".")[0])
    if distribution.endswith(".py") and (beside := _beside(error, Path(distribution))) is not None:
        return beside
    if not library:
        return ""
    if library == "alseg":
        return "; was the plugin written for another version of alseg?"
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):  # a single file is of no distribution
        requirements = []
    extras = [re.search(r"extra\s*==\s*[\"']([^\"']+)", requirement) for requirement in requirements]
    sizes = Counter(extra[1] for extra in extras if extra)
    found: dict[str, int] = {}
    for requirement, extra in zip(requirements, extras, strict=True):
        named = re.match(r"[\w.-]+", requirement)
        if named is not None and f"{_normal(named[0])}-".startswith(f"{library}-"):
            wanted = f"{distribution}[{extra[1]}]" if extra else requirement.partition(";")[0].strip()
            found[wanted] = sizes[extra[1]] if extra else 0
    if found:  # of several extras that have it the smallest
        return f"; pip install '{min(found, key=found.__getitem__)}'"
    return f"; is it to be had by pip install {library}?"


def _beside(error: ImportError, file: Path) -> str | None:
    """What to do where a single file lacks what lies beside it, or its own package; None where it is neither."""
    folder, name = file.parent, (error.name or "").partition(".")[0]
    package = folder / PACKAGE_FILE
    if not name and "relative import" in str(error):
        return f"; the file is imported alone: give the package, --plugin {package}, whose modules find one another"
    if name.startswith(FILE_MODULE):
        return f"; it is looked for in {folder}"
    own = file.name == PACKAGE_FILE and name == folder.name
    if not own and not any((folder / place).exists() for place in (f"{name}.py", f"{name}/{PACKAGE_FILE}")):
        return None
    relative = "from . import ..." if own else f"from . import {name}"
    if file.name == PACKAGE_FILE:
        return f"; it is {'the package itself' if own else 'in the package'}: write `{relative}`"
    return (
        f"; it lies beside the file, which is imported alone: make a package of them, --plugin {package}, where "
        f"`{relative}` finds it"
    )


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
