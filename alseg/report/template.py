"""The pages' templates: Jinja files, with what all pages have in common beside this one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2


@cache
def template(path: Path) -> jinja2.Template:
    """A page's template, which may include those beside this file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(path.name)
