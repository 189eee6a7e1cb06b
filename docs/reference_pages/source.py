"""Classes and functions as their source says them: signatures, fields with their comments, docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from reference_pages.words import fenced, paragraphs

WIDTH = 100


def described(thing: Any, level: int) -> str:
    """A function or class: a heading, its signature, its docstring; of a class its fields and methods too."""
    source = textwrap.dedent(inspect.getsource(thing))
    node = ast.parse(source).body[0]
    heading = f"{'#' * level} {thing.__name__}\n\n"
    if isinstance(node, ast.ClassDef):
        return heading + _class(node, source)
    assert isinstance(node, ast.FunctionDef)
    return heading + _function(node)


def fields_of(thing: type) -> list[str]:
    """The public fields of a class as its source has them, each with its comment."""
    source = textwrap.dedent(inspect.getsource(thing))
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.ClassDef)
    return _fields(node, source)


def _fields(node: ast.ClassDef, source: str) -> list[str]:
    lines = source.splitlines()
    return [
        textwrap.dedent("\n".join(lines[each.lineno - 1 : each.end_lineno]))
        for each in node.body
        if isinstance(each, ast.AnnAssign) and not _name(each).startswith("_")
    ]


def _class(node: ast.ClassDef, source: str) -> str:
    fields = _fields(node, source)
    text = _docstring(node)
    if fields:
        text += fenced("\n".join(fields)) + "\n"
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and _is_shown(each, node):
            text += fenced(signature(each)) + "\n" + _docstring(each)
    return text


def _name(field: ast.AnnAssign) -> str:
    return field.target.id if isinstance(field.target, ast.Name) else ""


def _is_shown(method: ast.FunctionDef, node: ast.ClassDef) -> bool:
    protocol = any(ast.unparse(base).startswith("Protocol") for base in node.bases)
    if method.name in ("__init__", "__call__", "__len__"):
        return protocol or method.name == "__init__"
    return not method.name.startswith("_")


def _function(node: ast.FunctionDef) -> str:
    return fenced(signature(node)) + "\n" + _docstring(node)


def _docstring(node: ast.FunctionDef | ast.ClassDef) -> str:
    text = ast.get_docstring(node)
    return f"{paragraphs(text)}\n\n" if text else ""


def signature(node: ast.FunctionDef) -> str:
    """Name, parameters and result as they are written, a parameter a line if long; a property as a field."""
    result = ast.unparse(node.returns) if node.returns else "Any"
    if any(ast.unparse(each) in ("property", "cached_property") for each in node.decorator_list):
        return f"{node.name}: {result}"
    line = f"{node.name}({ast.unparse(node.args)}) -> {result}"
    if len(line) <= WIDTH:
        return line
    parameters = "".join(f"    {part},\n" for part in _parameters(node.args))
    return f"{node.name}(\n{parameters}) -> {result}"


def _parameters(arguments: ast.arguments) -> list[str]:
    found, named = [], [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(named) - len(arguments.defaults)) + list(arguments.defaults)
    found += [_parameter(each, default) for each, default in zip(named, defaults, strict=True)]
    if arguments.vararg:
        found.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        found.append("*")
    found += [
        _parameter(each, default) for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    if arguments.kwarg:
        found.append(f"**{ast.unparse(arguments.kwarg)}")
    return found


def _parameter(each: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(each) if default is None else f"{ast.unparse(each)} = {ast.unparse(default)}"
