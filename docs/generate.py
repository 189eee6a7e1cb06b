"""Write the pages that are made from code: `python docs/generate.py`."""

from __future__ import annotations

from pathlib import Path

from reference_pages.commands import commands_page
from reference_pages.interfaces import hooks_page, protocols_page, python_page
from reference_pages.pieces import pieces_page
from reference_pages.settings import recipes_page, settings_page

from alseg.plugins import load_plugins

PAGES = {
    "settings.md": settings_page,
    "recipes.md": recipes_page,
    "reference/commands.md": commands_page,
    "reference/pieces.md": pieces_page,
    "reference/hooks.md": hooks_page,
    "reference/protocols.md": protocols_page,
    "reference/python.md": python_page,
}

if __name__ == "__main__":
    registry = load_plugins(third_party=False)
    for page, make in PAGES.items():
        (Path(__file__).parent / page).write_text(make(registry))
