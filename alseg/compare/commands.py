"""The runs of a grid as plain commands, for a job array."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from alseg.compare.request import Request
from alseg.compare.study import cells
from alseg.plugins import Registry


def commands_of(registry: Registry, request: Request, out: Path) -> list[str]:
    """An `alseg run` command for each run; the same comparison finds their folders afterwards."""
    lines = []
    for cell in cells(registry, request.grid, request.toml, request.flags):
        words = ["alseg", *(word for file in registry.files for word in ("--plugin", str(file)))]
        words += [*([] if registry.third_party else ["--no-third-party"]), "run"]
        for name, value in cell.given.items():
            words += ["-o", f"{name}={_text(value)}"]
        lines.append(shlex.join([*words, "--out", str(out / "runs" / cell.name)]))
    return lines


def _text(value: Any) -> str:
    """A value as -o takes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
