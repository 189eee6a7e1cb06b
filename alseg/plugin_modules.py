"""The import of one plugin's module: what it costs, which version of the API it declares, which hooks it has."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from alseg import hookspecs
from alseg.errors import AlsegError
from alseg.lacking import FILE_MODULE, PACKAGE_FILE
from alseg.names import nearest
from alseg.pieces import Plugin, name_of_file

# What plugins and alseg agree on: protocols, values and hooks. It rises when a plugin that keeps to them could break.
API_VERSION = 1
OLDEST_API_VERSION = 1  # that still works
DECLARATION = "ALSEG_API_VERSION"  # the name by which a plugin's module says which it was written for
SLOW = 0.5  # seconds of import that are worth a word
_importing = threading.RLock()


def module_of(path: Path) -> ModuleType:
    """A single file, imported under a name that no file elsewhere has; a package by its __init__.py."""
    name = f"{FILE_MODULE}{name_of_file(path)}_{zlib.crc32(str(path).encode()):08x}"
    inside = [str(path.parent)] if path.name == PACKAGE_FILE else None  # where `from . import` looks
    specification = importlib.util.spec_from_file_location(name, path, submodule_search_locations=inside)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    with _importing:  # another thread may import the same file
        _forget(name)  # a package's modules may have changed since, as its file may
        sys.modules[name] = module
        try:
            specification.loader.exec_module(module)
        except BaseException:
            _forget(name)
            raise
    return module


def _forget(name: str) -> None:
    """Take a module and those in it from what is imported."""
    for part in [part for part in sys.modules if f"{part}.".startswith(f"{name}.")]:
        del sys.modules[part]


def imported(plugin: Plugin, load: Callable[[], Any], source: Callable[[], Path | None]) -> Any:
    """A plugin's module; what its import cost every command is noted.

    source: gives its file. Raises AlsegError where it declares a version of the API that this alseg does not
    have, be it that its import fails for that.
    """
    had_torch, started = "torch" in sys.modules, time.perf_counter()
    try:
        module = load()
    except Exception:
        check_version(_declared(source()))
        raise
    plugin.seconds = time.perf_counter() - started
    check_version(getattr(module, DECLARATION, None))
    if not had_torch and "torch" in sys.modules:
        plugin.warning = (
            f"it imports torch when it is loaded, which costs every command {plugin.seconds:.1f} s: "
            "import torch inside the factory"
        )
    elif plugin.seconds > SLOW:
        plugin.warning = (
            f"it takes {plugin.seconds:.1f} s to load, which every command waits for: "
            "import inside the factory what is heavy"
        )
    return module


def check_version(declared: Any) -> None:
    """AlsegError where a plugin declares a version of the API that this alseg does not have; None declares nothing."""
    if declared is None:
        return
    if isinstance(declared, bool) or not isinstance(declared, int):
        raise AlsegError(f"{DECLARATION} is a whole number such as {API_VERSION}, not {declared!r}")
    if declared > API_VERSION:
        raise AlsegError(
            f"it is written for version {declared} of alseg's plugin API, and this alseg has {API_VERSION}: "
            "upgrade alseg"
        )
    if declared < OLDEST_API_VERSION:
        raise AlsegError(
            f"it is written for version {declared} of alseg's plugin API, and this alseg takes {OLDEST_API_VERSION} "
            f"to {API_VERSION}: upgrade the plugin"
        )


def _declared(source: Path | None) -> Any:
    """The version of the API that a file which cannot be imported declares, if it can be read."""
    try:
        tree = ast.parse(b"" if source is None else source.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    for line in tree.body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == DECLARATION for target in targets):
            value = getattr(line, "value", None)
            return value.value if isinstance(value, ast.Constant) else None
    return None


def file_of(entry_point: importlib.metadata.EntryPoint) -> Path | None:
    """The file of an entry point's module, found without importing the module itself."""
    try:
        specification = importlib.util.find_spec(entry_point.module)
    except Exception:  # a parent package that cannot be imported
        return None
    return Path(specification.origin) if specification is not None and specification.origin else None


def is_module_of(entry_point: importlib.metadata.EntryPoint, path: Path) -> bool:
    """Whether a file is the very module of an entry point, wherever links lead."""
    own = None if entry_point.attr else file_of(entry_point)
    return own is not None and own.resolve() == path.resolve()


def check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    """AlsegError where a registered plugin implements a hook that there is not, or one that cannot register."""
    known = [name for name in vars(hookspecs) if name.startswith(("register_", "run_", "round_"))]
    for caller in manager.get_hookcallers(module) or []:
        hook, specified = caller.name, caller.spec
        if specified is None:
            raise AlsegError(f"there is no hook {hook!r}{nearest(hook, known)}")
        mine = [each.argnames for each in caller.get_hookimpls() if each.plugin is module]
        lacks = [name for name in specified.argnames if not any(name in taken for taken in mine)]
        if hook.startswith("register_") and lacks:
            raise AlsegError(
                f"its hook {hook} lacks the parameter {lacks[0]!r}, by which it adds to alseg: write "
                f"def {hook}({lacks[0]})"
            )


def hook_problem(manager: pluggy.PluginManager, error: pluggy.PluginValidationError) -> str:
    """What is wrong with a hook that cannot be registered, on one line."""
    text = " ".join(str(error).split())
    found = re.search(r"for hook '(\w+)'.*Argument\(s\) \{(.+?)\} are declared", text)
    if found is None:
        return text.rstrip(".")
    gives = ", ".join(getattr(manager.hook, found[1]).spec.argnames) or "nothing"
    return f"its hook {found[1]} takes {found[2]}, which alseg does not give; it gives {gives}"


def trace_hooks(manager: pluggy.PluginManager, say: Callable[[str], None]) -> None:
    """Say each call of a hook on a plugin: the hook, the plugin, how long it took, what it raised."""
    began: list[float] = []

    def before(hook_name: str, hook_impls: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        began.append(time.perf_counter())

    def after(outcome: Any, hook_name: str, hook_impls: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        seconds = time.perf_counter() - began.pop()
        for called in hook_impls:
            failed = outcome.exception
            raised = "" if failed is None else f", raised {type(failed).__name__}: {failed}"
            say(f"hook {hook_name}({', '.join(kwargs)}) of {called.plugin_name}: {1000 * seconds:.1f} ms{raised}")

    manager.add_hookcall_monitoring(before, after)
