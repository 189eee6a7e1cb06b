"""Whether kernels that Triton compiles work on a device: that takes a C compiler, among other things."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import torch


def tried(attempt: Callable[[], object]) -> str | None:
    """Why an attempt to use kernels fails; None where it succeeds, or gives anything but False.

    It is made twice: processes that compile the same kernels at once can be in each other's way.
    """
    reason = "they gave other numbers"
    for _ in range(2):
        try:
            with torch.inference_mode(False):
                if attempt() is not False:
                    return None
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return reason


def has_triton(device: torch.device) -> bool:
    """Whether it is a GPU, and Triton is there."""
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def works(kernels: str, attempt: Callable[[], object], device: torch.device) -> bool:
    """Whether an attempt to use them succeeds; where it does not on a GPU with Triton, a warning says why."""
    if not has_triton(device):
        return False
    reason = tried(attempt)
    if reason is not None:
        warnings.warn(f"Triton's kernels of {kernels} do not work here, torch's are slower: {reason}", stacklevel=2)
    return reason is None
