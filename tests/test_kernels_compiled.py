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
from alseg.engine import cast_kernels, descent_kernels, norm_kernels
from alseg_pixelpick import depthwise_kernels

# the others are float32
TENSORS = {"x": "bf16", "y": "bf16", "dy": "bf16", "dx": "bf16", "tracked": "i64", "tickets": "i32", "table": "i64"}
NUMBERS = {
    norm_kernels: {"rows", "channels", "chunk", "parts", "pitch"},
    depthwise_kernels: {"cells", "height", "width", "channels", "rate", "chunk"},
    descent_kernels: set(),
    cast_kernels: set(),
}
FLOATS = {"momentum", "eps", "low", "high", "count", "decay", "mean_rate", "square_rate", "size", "scale"}
CONSTANTS = {
    norm_kernels: {"ALL": norm_kernels.PARTS, "STAGES": norm_kernels.STAGES},
    depthwise_kernels: {"FLIP": True, "K": 3, "BP": depthwise_kernels.CELLS, "BC": depthwise_kernels.CHANNELS},
    descent_kernels: {"C": descent_kernels.COLUMNS, "N": descent_kernels.CHUNK},
    cast_kernels: {"C": cast_kernels.COLUMNS, "N": cast_kernels.CHUNK},
}
CALLED = ("_place", "_normalised", "_ended_last", "_passed", "_moved")  # by others

def compiled(kernel, numbers, constants, capability):
    names = kernel.arg_names
    kinds = {n: "i32" if n in numbers else "fp32" if n in FLOATS else "*" + TENSORS.get(n, "fp32") for n in names}
    kinds |= {n: "constexpr" for n in names if n in constants}
    # as at a launch: torch's tensors are aligned, and the layers' channels are multiples of 16
    whole = [i for i, n in enumerate(names) if kinds[n][0] == "*" or n in ("channels", "pitch")]
    aligned = {(i,): [["tt.divisibility", 16]] for i in whole}
    held = {n: constants[n] for n in names if n in constants}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=held, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]

seen = 0
for module, constants in CONSTANTS.items():
    for name, kernel in vars(module).items():
        if not isinstance(kernel, JITFunction) or name in CALLED:
            continue
        summing = "ALL" in kernel.arg_names
        tile = norm_kernels.SUM_TILE if summing else norm_kernels.PASS_TILE
        ptx = compiled(kernel, NUMBERS[module], dict(zip(("BR", "BC"), tile)) | constants, int(sys.argv[1]))
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
    assert done.stdout.startswith("8 kernels")
