"""What the command line knows of torchrun, without torch."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's place among those that torchrun started; 0 for one that was started alone."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0
