"""Rules of the house that a linter does not know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = sorted(path for path in (ROOT / "alseg").rglob("*.py") if "templates" not in path.parts)
SOURCES = CORE + sorted((ROOT / "plugins").rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_imports_no_plugin_and_names_no_piece(path, registry):
    plugins = {folder.name for folder in (ROOT / "plugins").iterdir()}
    assert not {name.split(".")[0] for name in imports(path)} & plugins
    names = {piece.name for piece in registry.pieces if piece.kind != "recipe"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            compared = {c.value for c in [node.left, *node.comparators] if isinstance(c, ast.Constant)}
            assert not compared & names, f"line {node.lineno} compares a piece's name"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_and_functions_stay_short(path):
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 330
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            statements = (node.end_lineno or 0) - node.body[0].lineno + 1
            # a command's options and a recipe's numbers are lists, not logic
            assert statements <= 50, f"{node.name} has {statements} lines"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_text_is_read_and_written_in_no_machines_own_encoding(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = len(node.args) + sum(keyword.arg == "encoding" for keyword in node.keywords)
            wanted = {"read_text": 1, "write_text": 2}.get(node.func.attr, 0)
            assert named >= wanted, f"line {node.lineno} leaves the encoding to the locale"


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_randomness_comes_from_one_place(path):
    text = path.read_text()
    if path.name in ("noise.py", "device.py"):
        return
    assert not re.search(r"np\.random|import random|torch\.(rand|randn|randint|manual_seed|Generator)\b", text)


def test_protocols_and_hooks_stay_small():
    assert len((ROOT / "alseg" / "protocols.py").read_text().splitlines()) <= 150
    assert len((ROOT / "alseg" / "hookspecs.py").read_text().splitlines()) <= 90


def test_the_public_surface_is_what_alseg_exports():
    import alseg

    for name in alseg.__all__:
        assert getattr(alseg, name) is not None
    assert sorted(alseg.__all__, key=str.lower) == sorted(set(alseg.__all__), key=str.lower)
