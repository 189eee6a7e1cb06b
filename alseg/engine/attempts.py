"""Whether kernels that Triton compiles work on a device: that takes a C compiler, among other things."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable

import torch


def works(kernels: str, attempt: Callable[[], object], device: torch.device) -> bool:
    """Whether an attempt to use them succeeds, or gives anything but False; where it does not, a warning says why.

    It is made twice: processes that compile the same kernels at once can be in each other's way.
    """
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    reason = "they gave other numbers"
    for _ in range(2):
        try:
            with torch.inference_mode(False):
                if attempt() is not False:
                    return True
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    warnings.warn(f"Triton's kernels of {kernels} do not work here, torch's are slower: {reason}", stacklevel=2)
    return False
