"""Which device and precision a run uses, and torch's own randomness around a phase."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import nn

from alseg import noise
from alseg.errors import Lasting, UserMistake
from alseg.protocols import Model

T = TypeVar("T")
_generators = threading.RLock()
# what torch says in a plain RuntimeError: its allocator on CPUs (Linux, Windows), C++, the driver, cuBLAS and cuDNN,
# of which it tries each way to convolve and passes over those that there is no memory for
NO_MEMORY = (
    *("can't allocate memory", "not enough memory", "std::bad_alloc"),
    *("CUDA error: out of memory", "STATUS_ALLOC_FAILED"),
    *("unable to find an engine to execute this computation", "Unable to find a valid cuDNN algorithm"),
)


def choose_device(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserMistake(f"device takes auto, cpu or cuda, not {name!r}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserMistake("There is no GPU that torch can use here: give --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserMistake(f"There is no {name}: this machine has {torch.cuda.device_count()} GPUs.")
    if device.type not in ("cpu", "cuda"):
        raise UserMistake(f"device takes auto, cpu or cuda, not {name!r}.")
    return device


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, where this is glibc: else each large tensor's pages are new, and zeroed again.

    This holds for the whole process from then on. mallopt(3): M_TRIM_THRESHOLD is -1, M_MMAP_THRESHOLD is -3.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another system's libc
        mallopt = ctypes.CDLL(None).mallopt
        # older ones take no threshold above 32 MB; without one the second call would make things worse
        if mallopt(-3, 2**31 - 1) or mallopt(-3, 2**25):
            mallopt(-1, 2**31 - 1)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto" takes bfloat16 where the hardware multiplies it faster than float32."""
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in named:
        return named[name]
    if name != "auto":
        raise UserMistake(f"precision takes auto, float32 or bfloat16, not {name!r}.")
    if device.type == "cuda":
        with current(device):  # which is the one that torch asks
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    has_dots = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_tiles or has_dots else torch.float32


def describe_device(device: torch.device) -> str:
    """Such as "cpu, 2 threads" or "cuda:0, NVIDIA H100"."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"{device}, {torch.get_num_threads()} threads"


def lower_precision(device: torch.device, precision: torch.dtype) -> Any:
    """Autocast to bfloat16, or nothing.

    Weights that were cast are not kept: within an autocast of somebody else's they would be after a step, too.
    """
    on = precision == torch.bfloat16
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=on, cache_enabled=False)


@contextlib.contextmanager
def own_modes() -> Iterator[None]:
    """Inside, gradients are had and nothing is cast, whatever torch was told before by those who call alseg.

    What a piece casts by an autocast of its own is not kept: this one, which is the outermost, lasts as long as a run.
    """
    with torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        yield


@contextlib.contextmanager
def seeded(device: torch.device, seed: int, round: int, purpose: str, key: str = "") -> Iterator[None]:
    """Torch's generators start from a keyed seed inside, and are as before after it.

    They are the whole process's: another thread that wants them waits.
    """
    devices = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with _generators, torch.random.fork_rng(devices):
        draw_from(noise.stream(seed, round, purpose, key), device)
        yield


def draw_from(start: int, device: torch.device) -> None:
    """Let the generators of the CPU and the device go on from the start of a stream; within `seeded` of that device.

    Those of other devices, which `seeded` would not bring back, are left alone.
    """
    seed = start & (2**63 - 1)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.init()  # before which there are no generators
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


def current(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The device is the current one inside, on which Triton launches its kernels and CUDA graphs are recorded."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Torch's deterministic algorithms inside, where asked."""
    if not on:
        yield
        return
    # What cuBLAS needs for it. It stays: a workspace that torch makes between two phases is used in the second.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        torch.backends.cudnn.benchmark = benchmark


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or not."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def in_smaller_batches(
    work: Callable[[int], T], batch_size: int, what: str, say: Callable[[str], None], least: int = 1
) -> T:
    """`work(batch_size)`, and again with half of it where memory runs out; Lasting where `least` is too many."""
    while True:
        try:
            return work(batch_size)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if batch_size <= least:
                raise Lasting(f"There is not enough memory for {what} of {batch_size}: give a smaller size.") from error
        # here, not above: the traceback would hold on to the memory
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        batch_size //= 2
        say(f"Memory ran out: {what} of {batch_size} from here on.")


@contextlib.contextmanager
def inferring(model: Model, precision: torch.dtype) -> Iterator[Model]:
    """The model's own fast copy for evaluation mode where it has one, else the model in evaluation mode inside."""
    from alseg.engine.calls import quick_copy  # which needs this module

    with mode(model, False):
        yield quick_copy(model, precision) if hasattr(model, "for_inference") else model


@contextlib.contextmanager
def mode(model: nn.Module | Model, training: bool) -> Iterator[None]:
    """The model in training or evaluation mode inside, and as before after it."""
    assert isinstance(model, nn.Module)
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
