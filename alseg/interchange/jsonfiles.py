"""JSON files of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alseg.errors import UserMistake


def read_json(path: Path) -> Any:
    """What a JSON file holds; UserMistake where it is none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserMistake(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserMistake(f"{path} is no JSON: {str(error).splitlines()[0]}.") from error
