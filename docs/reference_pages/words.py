"""How text from code stands in Markdown."""

from __future__ import annotations

import inspect
import re
from typing import Any

from alseg.options import Option, plain

MADE = "Made by `python docs/generate.py`."


def shown(value: Any) -> str:
    """A setting's value in a table's cell."""
    value = plain(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def default_of(option: Option) -> str:
    """An option's default in a table's cell."""
    described = option.describe()
    return "must be given" if described["required"] else shown(described["default"])


def prose(text: str) -> str:
    """Text outside code spans with what Markdown and HTML would take for markup escaped."""
    parts = re.split(r"(`[^`\n]+`)", text)
    return "".join(part if part.startswith("`") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]*_])", r"\\\1", text).replace("<", "&lt;").replace(">", "&gt;")


def cell(text: str) -> str:
    """Text on one line of a table."""
    return prose(" ".join(text.split())).replace("|", r"\|")


def code(text: str) -> str:
    """Text as code within a table's cell."""
    return f"`{text}`".replace("|", r"\|")


def table(titles: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown, of cells that are escaped already."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def documentation(thing: Any) -> str:
    """A docstring, dedented; empty where there is none."""
    return inspect.getdoc(thing) or ""


def paragraphs(docstring: str) -> str:
    """A docstring as Markdown: its indented parts are code, the rest is prose."""
    blocks = re.split(r"\n\s*\n", docstring.strip())
    return "\n\n".join(block if block.startswith("    ") else prose(block) for block in blocks)


def fenced(text: str, language: str = "python") -> str:
    """A block of code that is shown, and no example to be run."""
    return f"```{language}\n{text}\n```\n"
