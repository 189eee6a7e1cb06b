"""Loading plugins, each on its own, and looking up the pieces they register."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from alseg import hookspecs
from alseg.errors import AlsegError, UserMistake
from alseg.names import nearest
from alseg.pieces import GIVEN, Piece, Plugin, install_hint

# What plugins and alseg agree on: protocols, values and hooks. It rises when a plugin that keeps to them could break.
API_VERSION = 1
OLDEST_API_VERSION = 1  # that still works
DECLARATION = "ALSEG_API_VERSION"  # the name by which a plugin's module says which it was written for
FIRST_PARTY = "alseg"
FOLDERS = "ALSEG_PLUGINS"  # environment variable: folders of single files
SLOW = 0.5  # seconds of import that are worth a word


@dataclass
class Registry:
    """All plugins and pieces of one plugin manager."""

    manager: pluggy.PluginManager
    plugins: list[Plugin] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # plugins that are single files
    third_party: bool = True  # whether other people's were let in

    def of(self, kind: str) -> Iterator[Piece]:
        """The pieces of a kind."""
        return (piece for piece in self.pieces if piece.kind == kind)

    def find(self, kind: str, name: str) -> Piece:
        """The piece called `name`, `distribution:name` where two distributions claim it, or `modifier:name`."""
        piece = self._found(kind, name)
        if piece.is_modifier and piece.inner is None:
            raise _alone(kind, name)
        return piece

    def _found(self, kind: str, name: str) -> Piece:
        found = [piece for piece in self.of(kind) if piece.name == name]
        head, colon, rest = name.partition(":")
        if not found and colon:
            of_distribution = [piece for piece in self.of(kind) if piece.plugin.distribution == head]
            found = [piece for piece in of_distribution if piece.name == rest]
            # distribution:modifier:name
            modifier, again, inner = rest.partition(":")
            if not found and again and any(piece.name == modifier for piece in of_distribution):
                return self._modified(kind, f"{head}:{modifier}", inner)
            if not found and any(piece.name == head for piece in self.of(kind)):
                return self._modified(kind, head, rest)
        if len(found) == 1:
            return found[0]
        if found:
            claims = " and ".join(sorted({piece.plugin.distribution for piece in found}))
            raise UserMistake(
                f"The {kind} {name!r} is registered by {claims}: write {found[0].plugin.distribution}:{name} to choose."
            )
        message = f"There is no {kind} {name!r}{self._nearest(kind, name)}."
        for plugin in self.plugins:
            if plugin.status == "failed":
                message += f" The plugin {plugin.name} of {plugin.distribution} failed to load: {plugin.error}."
        raise UserMistake(message)

    def _modified(self, kind: str, name: str, inner: str) -> Piece:
        modifier = self._found(kind, name)
        if not modifier.is_modifier:
            whole, near = f"{name}:{inner}", self._nearest(kind, f"{name}:")
            raise UserMistake(f"There is no {kind} {whole!r}: {name!r} modifies no other{near}.")
        if not inner:
            raise _alone(kind, name)
        return replace(modifier, name=f"{name}:{inner}", inner=self.find(kind, inner))

    def _nearest(self, kind: str, name: str) -> str:
        """Names like an unknown one; where it has a modifier's form, modifiers like its first part."""
        modifier, colon, _ = name.partition(":")
        if not colon:
            return nearest(name, [piece.name for piece in self.of(kind)])
        return nearest(f"{modifier}:", [f"{piece.name}:" for piece in self.of(kind) if piece.is_modifier])

    def hooks_of(self, plugin: Plugin) -> list[str]:
        """The names of the hooks that a plugin implements."""
        module = self.manager.get_plugin(f"{plugin.distribution}:{plugin.name}")
        return sorted(caller.name for caller in self.manager.get_hookcallers(module) or [])

    @contextlib.contextmanager
    def joined_by(self, trackers: Mapping[str, Any]) -> Iterator[None]:
        """While it lasts, life-cycle hooks are called on these objects too; named by what they are called."""
        try:
            for name, tracker in trackers.items():
                try:
                    self.manager.register(tracker, name=name)
                    _check_hooks(self.manager, tracker)
                except (AlsegError, ValueError, pluggy.PluginValidationError) as error:
                    reason = " ".join(str(error).split()).rstrip(".")
                    raise AlsegError(f"The {name} cannot hear of a run: {reason}.") from error
                if not self.manager.get_hookcallers(tracker):
                    raise AlsegError(f"The {name} implements no life-cycle hook: its methods need @hookimpl.")
            yield
        finally:
            for name in trackers:
                if self.manager.has_plugin(name):
                    self.manager.unregister(name=name)

    def notify(self, hook: str, /, *, after: Callable[[str], None] = lambda name: None, **arguments: Any) -> list[str]:
        """Call a life-cycle hook on every plugin; what a plugin raises is returned as a sentence.

        after: told the name of each plugin, distribution:plugin, when it was called.
        """
        failures = []
        for name, plugin in self.manager.list_name_plugin():
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
                    self.manager.subset_hook_caller(hook, others)(**arguments)
            except (Exception, SystemExit) as error:
                to_do = install_hint(error, name.partition(":")[0]) if isinstance(error, ImportError) else ""
                who = name if name.startswith("tracker ") else f"plugin {name}"
                failures.append(f"The {who} failed in {hook}: {type(error).__name__}: {error}{to_do}")
            after(name)
        return failures


def load_plugins(
    files: Iterable[Path] = (),
    third_party: bool = True,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    trace: Callable[[str], None] | None = None,
) -> Registry:
    """A registry of the installed plugins and of single files; one that fails is listed with its error.

    files: besides those in the folders that the environment variable ALSEG_PLUGINS names. third_party: whether
    other distributions' plugins and those folders count. trace: is told each call of a hook in a line.
    """
    manager = pluggy.PluginManager("alseg")
    manager.add_hookspecs(hookspecs)
    if trace is not None:
        _trace(manager, trace)
    registry = Registry(manager, third_party=third_party)
    found = importlib.metadata.entry_points(group="alseg") if entry_points is None else entry_points
    seen: set[tuple[str, str]] = set()
    for entry_point in sorted(found, key=lambda e: (_distribution(e)[0] != FIRST_PARTY, e.name, e.value)):
        distribution, version = _distribution(entry_point)
        if (entry_point.name, distribution) in seen or (not third_party and distribution != FIRST_PARTY):
            continue
        seen.add((entry_point.name, distribution))
        _add(registry, Plugin(entry_point.name, distribution, version), entry_point.load)
    given = [Path(file).absolute() for file in files]
    for path in given:
        if not path.is_file():
            raise UserMistake(f"There is no plugin file {path}.")
    in_folders = _files_in_folders(registry) if third_party else []
    for path in dict.fromkeys([*given, *in_folders]):
        registry.files.append(path)
        _add(registry, Plugin(path.stem, str(path), "-"), partial(_module, path))
    return registry


def _files_in_folders(registry: Registry) -> Sequence[Path]:
    """The single files in ALSEG_PLUGINS' folders; a folder that cannot be read is listed as a failed plugin."""
    files: list[Path] = []
    for name in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        folder = Path(name).expanduser().absolute()
        try:
            found = sorted(path for path in folder.iterdir() if path.suffix == ".py" and path.is_file())
        except OSError as error:
            failed = Plugin(
                folder.name, FOLDERS, "-", "failed", f"the folder {folder} cannot be read: {error.strerror}"
            )
            registry.plugins.append(failed)
            continue
        files += [
            path for path in found if not path.name.startswith(("_", ".", "test_")) and path.name != "conftest.py"
        ]
    return files


def _trace(manager: pluggy.PluginManager, say: Callable[[str], None]) -> None:
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


def _distribution(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist
    return (distribution.name, distribution.version) if distribution is not None else ("unknown", "-")


def _module(path: Path) -> Any:
    name = f"alseg_plugin_file_{path.stem}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


def _add(registry: Registry, plugin: Plugin, load: Callable[[], Any]) -> None:
    """Import one plugin and let it register; either all of its pieces count or none."""
    registry.plugins.append(plugin)
    module: Any = None
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
            module = _imported(plugin, load)
            _check_version(module)
            registry.manager.register(module, name=f"{plugin.distribution}:{plugin.name}")
            _check_hooks(registry.manager, module)
            pieces = list(_pieces(registry.manager, plugin, module))
        if not registry.manager.get_hookcallers(module):
            raise AlsegError("it implements no hook; is @hookimpl missing?")
    except (Exception, SystemExit) as error:
        if module is not None and registry.manager.is_registered(module):
            registry.manager.unregister(module)
        text = str(error).strip().splitlines()
        reason = " ".join(line.strip() for line in text[:4]).rstrip(".: ")
        to_do = install_hint(error, plugin.distribution) if isinstance(error, ImportError) else ""
        plugin.status, plugin.error = "failed", f"{type(error).__name__}: {reason}".rstrip(".: ") + to_do
        return
    registry.pieces += pieces


def _imported(plugin: Plugin, load: Callable[[], Any]) -> Any:
    """The plugin's module; what its import cost every command is noted."""
    had_torch, started = "torch" in sys.modules, time.perf_counter()
    module = load()
    plugin.seconds = time.perf_counter() - started
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


def _check_version(module: Any) -> None:
    """AlsegError where the plugin declares a version of the API that this alseg does not have."""
    declared = getattr(module, DECLARATION, None)
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


def _check_hooks(manager: pluggy.PluginManager, module: Any) -> None:
    known = [name for name in vars(hookspecs) if name.startswith(("register_", "run_", "round_"))]
    for caller in manager.get_hookcallers(module) or []:
        if not caller.has_spec():
            raise AlsegError(f"there is no hook {caller.name!r}{nearest(caller.name, known)}")


def _pieces(manager: pluggy.PluginManager, plugin: Plugin, module: Any) -> Iterator[Piece]:
    others = [other for other in manager.get_plugins() if other is not module]
    for kind in GIVEN:
        found: list[Piece] = []

        def register(name: str, factory: Callable[..., Any], kind: str = kind, found: Any = found) -> None:
            if not isinstance(name, str) or not name or not callable(factory):
                raise TypeError(f"register takes a name and a factory, not {name!r} and {factory!r}")
            if any(piece.name == name for piece in found):
                raise ValueError(f"the {kind} {name!r} is registered twice")
            found.append(Piece(kind, name, factory, plugin))

        manager.subset_hook_caller(f"register_{kind}s", others)(register=register)
        yield from found


def _alone(kind: str, modifier: str) -> UserMistake:
    return UserMistake(f"The {kind} {modifier!r} modifies another: write {modifier}:NAME.")


def plugin_hint(record: Any) -> str:
    """A sentence on the plugin files that a run was started with, from the record in its settings."""
    files = record.get("plugin_files") if isinstance(record, Mapping) else None
    return f" It was started with {' '.join(f'--plugin {file}' for file in files)}." if files else ""
