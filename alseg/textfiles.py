"""Small text files as people write them."""

from __future__ import annotations

from pathlib import Path

from alseg.errors import UserMistake

MOST = 2**24  # letters


def read_small(path: Path, errors: str = "strict") -> str:
    """A file's text, from UTF-8 with or without a byte order mark; UserMistake where it is too much, or has no end.

    It may be a pipe. errors: what becomes of bytes that are not UTF-8, as `bytes.decode` has it.
    """
    with path.open(encoding="utf-8-sig", errors=errors) as file:  # Windows' editors begin with a byte order mark
        text = file.read(MOST + 1)
    if len(text) > MOST:
        raise UserMistake(f"{path} is larger than {MOST >> 20} MB: give a small text file.")
    return text
