"""Triton's kernels as they are compiled for GPUs, which takes none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.jit import JITFunction
from alseg.engine import norm_kernels
from alseg_pixelpick import cell_kernels, depthwise_kernels, resize_kernels

LOWER = ("x", "y", "dy", "dx", "context", "low", "maps", "out")
TENSORS = dict.fromkeys(LOWER, "bf16") | {"tracked": "i64", "cells": "i32"}  # the others are float32
NUMBERS = {
    norm_kernels: {"rows", "channels", "chunk", "parts"},
    depthwise_kernels: {"cells", "height", "width", "channels", "rate", "chunk"},
    resize_kernels: {*resize_kernels.VARIED, "channels", "others"},
    cell_kernels: {*cell_kernels.VARIED, "channels"},
}
FLOATS = {
    norm_kernels: {"momentum", "eps", "low", "high"},
    depthwise_kernels: set(),
    cell_kernels: set(),
    resize_kernels: {"down", "across", "tall", "wide"},
}
INNER = ("_normalised", "_passed", "_position", "_share", "_along")  # which others call
CONSTANTS = {
    norm_kernels: {"BR": norm_kernels.ROWS, "ALL": norm_kernels.PARTS},
    depthwise_kernels: {"FLIP": True, "K": 3, "BP": depthwise_kernels.CELLS, "BC": depthwise_kernels.CHANNELS},
    resize_kernels: {"K": resize_kernels.most_seen(120, 30), "BC": resize_kernels.CHANNELS},
    cell_kernels: {"BC": cell_kernels.CHANNELS},
}
ROWS = {"_look_up": cell_kernels.ROWS, "_give_back": cell_kernels.OTHERS}
CELLS = {"_join": resize_kernels.CELLS, "_gather": resize_kernels.SMALL_CELLS}

def compiled(kernel, numbers, floats, constants, capability):
    names = kernel.arg_names
    kinds = {n: "i32" if n in numbers else "fp32" if n in floats else "*" + TENSORS.get(n, "fp32") for n in names}
    kinds |= {n: "constexpr" for n in names if n in constants}
    # as at a launch: torch's tensors are aligned, and the layers' channels are multiples of 16
    even = [kinds[n][0] == "*" or n in ("channels", "others") for n in names]
    aligned = {(i,): [["tt.divisibility", 16]] for i, wanted in enumerate(even) if wanted}
    held = {n: constants[n] for n in names if n in constants}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=held, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]

seen = 0
for module, constants in CONSTANTS.items():
    for name, kernel in vars(module).items():
        if not isinstance(kernel, JITFunction) or name in INNER:
            continue
        summing = "ALL" in kernel.arg_names
        width = norm_kernels.FEW if summing else norm_kernels.COLUMNS
        held = {"BC": width, "BP": CELLS.get(name), "BR": ROWS.get(name)} | constants
        ptx = compiled(kernel, NUMBERS[module], FLOATS[module], held, int(sys.argv[1]))
        assert "ld.global.v4" in ptx and "ld.global.b16" not in ptx, f"{name} loads number by number"
        seen += 1
print(seen, "kernels")
"""


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_and_load_whole_vectors(tmp_path, capability):
    pytest.importorskip("triton", reason="Triton is not installed here")
    script = tmp_path / "compiled.py"
    script.write_text(CODE)
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, script, str(capability)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 kernels")
