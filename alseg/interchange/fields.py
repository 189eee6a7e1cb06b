"""JSON files of others, and the fields of a label as text or JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alseg.errors import UserMistake
from alseg.values import PixelLabel

COLUMNS = ("item", "image", "y", "x", "class", "round", "source", "who", "seconds", "audit")
DETAILS = ("item", "round", "source", "who", "seconds", "audit")  # what other programs pass through, if at all
IMPORTED = "imported"  # the source of a label that does not say its own
MOST = 2**31 - 1
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?")


def read_json(path: Path) -> Any:
    """What a JSON file holds; UserMistake where it is none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserMistake(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserMistake(f"{path} is no JSON: {str(error).splitlines()[0]}.") from error


def shown(value: Any) -> str:
    """A name or value for a sentence: quoted, on one line, not endless."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)} characters)"


def whole(value: Any, what: str) -> int:
    """A whole number from 0; UserMistake says what is none."""
    number: int | None = None
    if isinstance(value, str):
        number = int(value.strip().partition(".")[0]) if _WHOLE.fullmatch(value.strip()) else None
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if number is None or not 0 <= number <= MOST:
        raise UserMistake(f"{what} is {shown(value)}, not a whole number from 0.")
    return number


def real(value: Any, what: str) -> float:
    """A finite number; UserMistake says what is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UserMistake(f"{what} is {shown(value)}, not a number.")
    return number


def text(value: Any, what: str) -> str:
    """A text; UserMistake says what is none."""
    if not isinstance(value, str):
        raise UserMistake(f"{what} is {shown(value)}, not a text.")
    return value


def table(value: Any, what: str) -> Mapping[str, Any]:
    """A JSON object; UserMistake says what is none."""
    if not isinstance(value, Mapping):
        raise UserMistake(f"{what} is {shown(value)}, not an object.")
    return value


def items(value: Any, what: str) -> Sequence[Any]:
    """A JSON list; UserMistake says what is none."""
    if not isinstance(value, list):
        raise UserMistake(f"{what} is {shown(value)}, not a list.")
    return value


def yes(value: Any, what: str) -> bool:
    """A truth value, as JSON has it or as people write it; UserMistake says what is none."""
    word = str(value).strip().lower()
    if word not in ("", "0", "1", "none", "false", "true", "no", "yes"):
        raise UserMistake(f"{what} is {shown(value)}, neither yes nor no.")
    return word in ("1", "true", "yes")


def details(label: PixelLabel) -> dict[str, Any]:
    """What a label has besides its place and class."""
    return {name: getattr(label, name) for name in DETAILS}


def label(image: str, y: int, x: int, name: str | None, more: Mapping[str, Any], number: int) -> PixelLabel:
    """A label from a place, a class ("can't tell": None) and its other fields, as far as they are there.

    number: what an item without a name is called by. UserMistake says which field is wrong.
    """
    seconds, asked = more.get("seconds"), more.get("round")
    return PixelLabel(
        item=text(more.get("item") or f"{IMPORTED}-{number:07}", "item"),
        image=image,
        y=y,
        x=x,
        name=name,
        round=0 if asked in (None, "") else whole(asked, "round"),
        source=text(more.get("source", IMPORTED), "source"),
        who=text(more.get("who", ""), "who"),
        seconds=None if seconds in (None, "") else real(seconds, "seconds"),
        audit=yes(more.get("audit", ""), "audit"),
    )
