"""Settings in TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from alseg.config import flatten
from alseg.errors import UserMistake
from alseg.paths import expanded
from alseg.textfiles import read_small

TWICE = '; a name stands once, and a piece that has options in a table is named in it, as name = "folder" in [dataset]'


def read_toml(path: Path) -> dict[str, Any]:
    """Settings from a TOML file, flat, without its tables for others: a run's record, a comparison's grid."""
    return flatten({name: value for name, value in _toml_file(path).items() if name not in ("record", "compare")})


def read_toml_table(path: Path, name: str) -> dict[str, Any]:
    """One table of a TOML file, empty where it has none."""
    table = _toml_file(path).get(name, {})
    if not isinstance(table, dict):
        raise UserMistake(f"{name} is a table in the settings {path}: [{name}].")
    return table


def _toml_file(path: Path) -> dict[str, Any]:
    path = expanded(path)
    try:
        return tomllib.loads(read_small(path))
    except OSError as error:
        raise UserMistake(f"Cannot read the settings {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        hint = TWICE if "Cannot overwrite a value" in str(error) else ""
        raise UserMistake(f"The settings {path} are not TOML: {error}{hint}.") from error
