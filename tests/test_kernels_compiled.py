"""Triton's kernels as they are compiled for GPUs, which takes none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = '''
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from triton.runtime.jit import JITFunction
from alseg.engine import depthwise_kernels, norm_kernels

TENSORS = {"x": "bf16", "y": "bf16", "dy": "bf16", "dx": "bf16", "tracked": "i64"}  # the others are float32
NUMBERS = {module: {*module.VARIED, "channels"} for module in (norm_kernels, depthwise_kernels)}
FLOATS = {"momentum", "eps", "low", "high"}

def tiled(side, **given):
    """The constants for 144 maps."""
    tiles = depthwise_kernels.tiles_of(144, side, back=given.get("BACK", False))
    return {"K": side, "UNIT": 8, "DOWN": tiles.down, "BP": tiles.blocks, "BC": tiles.channels} | given

def constants_of(name):
    """Those of each kind of a kernel that is compiled."""
    if hasattr(norm_kernels, name):
        summing = "ALL" in getattr(norm_kernels, name).arg_names
        width = norm_kernels.FEW if summing else norm_kernels.COLUMNS
        return [{"BR": norm_kernels.ROWS, "ALL": norm_kernels.PARTS, "BC": width}]
    if name == "_add":
        return [{"K": 3, "ALL": depthwise_kernels.PARTS, "BC": depthwise_kernels.FEW, "UNIT": 8}]
    kinds = [tiled(3, TALL=3, STRIDE=stride, BACK=False, FIRST=0) for stride in (1, 2)]
    kinds.append(tiled(7, TALL=1, STRIDE=1, BACK=False, FIRST=0))
    if name == "_convolve":
        kinds += [tiled(3, TALL=3, STRIDE=2, BACK=True, FIRST=1), tiled(7, TALL=2, STRIDE=2, BACK=True, FIRST=5)]
    return kinds

def compiled(kernel, numbers, constants, capability):
    names = kernel.arg_names
    kinds = {n: "i32" if n in numbers else "fp32" if n in FLOATS else "*" + TENSORS.get(n, "fp32") for n in names}
    kinds |= {n: "constexpr" for n in names if n in constants}
    # as at a launch: torch's tensors are aligned, and the layers' channels are multiples of 16
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if kinds[n][0] == "*" or n == "channels"}
    held = {n: constants[n] for n in names if n in constants}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=held, attrs=aligned)
    return compile(source, target=GPUTarget("cuda", capability, 32)).asm["ptx"]

seen = 0
for module in (norm_kernels, depthwise_kernels):
    for name, kernel in vars(module).items():
        # others call those
        if not isinstance(kernel, JITFunction) or name in ("_normalised", "_passed", "_cells", "_loaded"):
            continue
        for constants in constants_of(name):
            ptx = compiled(kernel, NUMBERS[module], constants, int(sys.argv[1]))
            assert "ld.global.v4" in ptx and "ld.global.b16" not in ptx, f"{name} loads number by number"
            # cells that neighbours see are loaded once, and so are the four gradients in _weigh
            if constants.get("K") == 3 and name in ("_convolve", "_weigh"):
                across = 2 if constants.get("BACK") else 3 + constants["STRIDE"]
                assert ptx.count("ld.global.v4") == across**2 + 4 * (name == "_weigh"), name
            seen += 1
print(seen, "kernels")
'''


@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_and_load_whole_vectors(tmp_path, capability):
    pytest.importorskip("triton", reason="Triton is not installed here")
    script = tmp_path / "compiled.py"
    script.write_text(CODE)
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, script, str(capability)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("15 kernels")
