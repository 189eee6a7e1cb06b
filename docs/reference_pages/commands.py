"""The help of every command, from the command line's own objects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from alseg.cli.app import build_app
from alseg.plugins import Registry
from reference_pages.words import MADE, cell, code, documentation, fenced, prose, table

HEADER = f"""# Commands

{MADE}
What `alseg COMMAND --help` says. Exit codes: 0 done, 2 a mistake of the caller's, 3 waiting for answers, 130
interrupted, 1 anything else. `--json`, where a command has it, prints one JSON document and nothing besides.

"""


def commands_page(registry: Registry) -> str:
    """docs/reference/commands.md."""
    root = typer.main.get_command(build_app(registry))
    text = HEADER
    for words, command in commands_of(root):
        text += f"{'#' * min(len(words) + 1, 4)} {' '.join(words)}\n\n{_command(words, command)}"
    return text.rstrip() + "\n"


def commands_of(command: Any, words: tuple[str, ...] = ("alseg",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that call it."""
    yield words, command
    for name, below in sorted(getattr(command, "commands", {}).items()):
        if not below.hidden:
            yield from commands_of(below, (*words, name))


def _command(words: tuple[str, ...], command: Any) -> str:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [parameter for parameter in shown if parameter.param_type_name == "argument"]
    options = [parameter for parameter in shown if parameter.param_type_name == "option"]
    usage = [*words, *(["[OPTIONS]"] if options else []), *(_metavar(argument) for argument in arguments)]
    if getattr(command, "commands", None):
        usage.append("COMMAND [ARGS]...")
    text = fenced(" ".join(usage), "text") + "\n" + "\n\n".join(map(prose, _blocks(_help(command)))) + "\n\n"
    if arguments:
        rows = [[code(_metavar(argument)), cell(_said(argument))] for argument in arguments]
        text += table(["argument", ""], rows) + "\n"
    for panel in dict.fromkeys(map(_panel, options)):
        rows = [_option(option) for option in options if _panel(option) == panel]
        width = 3 if any(row[2] for row in rows) else 2
        text += table([panel, "", "default"][:width], [row[:width] for row in rows]) + "\n"
    if command.epilog:
        text += _examples(command.epilog) + "\n"
    return text


def _help(command: Any) -> str:
    return command.help or documentation(command.callback)


def _blocks(text: str) -> list[str]:
    return [" ".join(block.split()) for block in re.split(r"\n\s*\n", text.strip())]


def _panel(option: Any) -> str:
    return getattr(option, "rich_help_panel", None) or "options"


def _option(option: Any) -> list[str]:
    names = ", ".join([*option.opts, *option.secondary_opts])
    takes = "" if option.is_flag else f" {_metavar(option)}"
    return [code(names + takes), cell(_said(option)), cell(_default(option))]


def _said(parameter: Any) -> str:
    return getattr(parameter, "help", None) or ""


def _metavar(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return name if parameter.required or name.startswith("[") or parameter.param_type_name == "option" else f"[{name}]"


def _default(option: Any) -> str:
    default = option.default
    if option.required:
        return "must be given"
    if callable(default) or default in (None, False, (), []) or "UNSET" in repr(default).upper():
        return ""
    if option.is_flag:
        return option.opts[0] if default is True else ""
    return str(default)


def _examples(epilog: str) -> str:
    """Examples as code: each on a line of its own, or after one another with semicolons."""
    lines = epilog.strip().removeprefix("Examples:").removeprefix("Example:").strip()
    examples = [example.strip().rstrip(".") for example in re.split(r"\n\s*\n|;", lines) if example.strip()]
    return fenced("\n".join(examples), "text")
