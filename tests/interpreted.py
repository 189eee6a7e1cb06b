"""Triton's kernels on a CPU: its interpreter is chosen before Triton is imported, and so in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def runs_interpreted(module: str) -> None:
    """Let `check_all("cpu")` of a module of tests run there."""
    pytest.importorskip("triton", reason="Triton is not installed here")
    code = f"from {module} import check_all; check_all('cpu'); print('the kernels ran')"
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "the kernels ran" in done.stdout
