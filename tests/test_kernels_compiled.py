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
from alseg.engine import cast_kernels, depthwise_kernels, descent_kernels, norm_kernels
from alseg_pixelpick import cell_kernels, resize_kernels

LOWER = ("x", "y", "dy", "dx", "context", "low", "maps", "out")
WHOLE = {"tracked": "i64", "table": "i64", "tickets": "i32", "cells": "i32"}
TENSORS = dict.fromkeys(LOWER, "bf16") | WHOLE  # the others are float32
# numbers that are multiples of 16 at a launch, as the layers' channels are; torch's tensors are aligned as well
EVEN = ("channels", "others", "pitch")
FLOATS = {"momentum", "eps", "low", "high", "count", "decay", "mean_rate", "square_rate", "size", "scale"}

def tiled(side, **given):
    """The constants of a depthwise convolution of 144 maps, and how many warps its programs have."""
    how = {"back": given.get("BACK", False), "weighs": "BACK" not in given}
    tiles = depthwise_kernels.tiles_of(144, side, given["STRIDE"], **how)
    shape = {"DOWN": tiles.down, "BP": tiles.blocks, "BC": tiles.channels, "num_warps": tiles.warps}
    return {"K": side, "UNIT": 8} | shape | given

def variants():
    """Every kernel, with what its names are other than elsewhere, and its constants."""
    summed = dict(zip(("BR", "BC"), norm_kernels.SUM_TILE))
    for every, few, stages in ((norm_kernels.PARTS, 0, norm_kernels.STAGES), (0, norm_kernels.FEW_PARTS, 1)):
        yield norm_kernels._moments, {}, {**summed, "ALL": every, "STAGES": stages}
        yield norm_kernels._products, {}, {**summed, "ALL": every, "STAGES": stages}
        passed = dict(zip(("BR", "BC"), norm_kernels.FEW_TILE if few else norm_kernels.PASS_TILE), FEW=few)
        yield norm_kernels._apply, {}, passed
        yield norm_kernels._back, {}, passed
    rate = {"rate": "i32"}  # for each of which it is compiled anew
    for stride in (1, 2):
        yield depthwise_kernels._convolve, rate, tiled(3, TALL=3, STRIDE=stride, BACK=False, FIRST=0)
        yield depthwise_kernels._weigh, rate, tiled(3, STRIDE=stride)
    yield depthwise_kernels._convolve, rate, tiled(7, TALL=1, STRIDE=1, BACK=False, FIRST=0)
    yield depthwise_kernels._convolve, rate, tiled(3, TALL=3, STRIDE=2, BACK=True, FIRST=1)
    yield depthwise_kernels._convolve, rate, tiled(7, TALL=2, STRIDE=2, BACK=True, FIRST=5)
    for most in (depthwise_kernels.FEW_PARTS, depthwise_kernels.PARTS):
        yield depthwise_kernels._add, {}, {"K": 3, "ALL": most, "BC": depthwise_kernels.FEW, "UNIT": 8}
    yield descent_kernels._adam, {}, {"C": descent_kernels.COLUMNS, "N": descent_kernels.CHUNK}
    yield cast_kernels._cast, {}, {"C": cast_kernels.COLUMNS, "N": cast_kernels.CHUNK}
    ratios = {"down": "fp32", "across": "fp32", "tall": "fp32", "wide": "fp32", "low": "*bf16"}
    wide = {"BC": resize_kernels.CHANNELS}
    yield resize_kernels._join, ratios, wide | {"BP": resize_kernels.CELLS}
    most = {"K": resize_kernels.most_seen(120, 30), "BP": resize_kernels.SMALL_CELLS}
    yield resize_kernels._gather, ratios, wide | most
    yield cell_kernels._look_up, {}, {"BC": cell_kernels.CHANNELS, "BR": cell_kernels.ROWS}
    yield cell_kernels._give_back, {}, {"BC": cell_kernels.CHANNELS, "BR": cell_kernels.OTHERS}

def kind_of(name, numbers, others, constants):
    if name in constants:
        return "constexpr"
    if name in others:
        return others[name]
    return "i32" if name in numbers else "fp32" if name in FLOATS else "*" + TENSORS.get(name, "fp32")

seen = 0
for kernel, others, constants in variants():
    numbers = {*getattr(sys.modules[kernel.__module__], "VARIED", ()), *EVEN}
    kinds = {name: kind_of(name, numbers, others, constants) for name in kernel.arg_names}
    whole = [i for i, (name, kind) in enumerate(kinds.items()) if kind[0] == "*" or name in EVEN]
    held = {name: constants[name] for name, kind in kinds.items() if kind == "constexpr"}
    aligned = {(i,): [["tt.divisibility", 16]] for i in whole}
    source = ASTSource(fn=kernel, signature=kinds, constexprs=held, attrs=aligned)
    warps = {"num_warps": constants.get("num_warps", 4)}
    ptx = compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32), options=warps).asm["ptx"]
    name = kernel.__name__
    loads = "cp.async.cg.shared.global" if constants.get("STAGES", 1) > 1 else "ld.global.v4"  # 16 bytes each
    assert loads in ptx and "ld.global.b16" not in ptx, f"{name} loads number by number"
    assert name != "_adam" or ("div.rn.f32" in ptx and "sqrt.rn.f32" in ptx), f"{name} is not rounded correctly"
    # cells that neighbours see are loaded once, and so are the four gradients in _weigh
    if constants.get("K") == 3 and name in ("_convolve", "_weigh"):
        stride, down = constants["STRIDE"], constants["DOWN"]
        cells = 4 if constants.get("BACK") else (3 + stride) * (3 + stride * (down - 1))
        assert ptx.count("ld.global.v4") == cells + 4 * (name == "_weigh"), name
    seen += 1
print(seen, "kernels")
'''


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_and_load_whole_vectors(tmp_path, capability):
    pytest.importorskip("triton", reason="Triton is not installed here")
    script = tmp_path / "compiled.py"
    script.write_text(CODE)
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, script, str(capability)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("23 kernels")
