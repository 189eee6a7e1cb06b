"""What mkdocs does to each page before it is built."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Take out of the fences what is for the tests: why a block is not run, and with what its commands end."""
    return re.sub(r'^(```.*?) (?:not-run|ends)="[^"]*"', r"\1", markdown, flags=re.MULTILINE)
