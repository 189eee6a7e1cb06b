"""Loading plugins, each on its own, and looking up the pieces they register."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from alseg import hookspecs
from alseg.errors import AlsegError, UserMistake
from alseg.names import nearest
from alseg.options import MISSING, Option, convert, options_of, parameters_of

# kind -> what the core gives its factories, where they take it
GIVEN: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "model": ("classes",),
    "acquirer": (),
    "selector": (),
    "oracle": ("images", "classes", "seed"),
    "term": ("model", "classes"),
    "recipe": (),
    "executor": (),
}
# A factory with one of these parameters is a modifier: it takes another piece of its kind, or what builds one anew.
WRAPPED: dict[str, tuple[str, str]] = {kind: (kind, f"new_{kind}") for kind in GIVEN}
FIRST_PARTY = "alseg"


@dataclass
class Plugin:
    """A plugin and how its loading went; `status` is "ok" or "failed"."""

    name: str
    distribution: str
    version: str
    status: str = "ok"
    error: str | None = None


@dataclass(frozen=True)
class Piece:
    """A registered name: what kind it is, who registered it, and its factory.

    inner: of a modifier that was found as `modifier:name`, the piece that it is to wrap.
    """

    kind: str
    name: str
    factory: Callable[..., Any]
    plugin: Plugin
    inner: Piece | None = None

    @property
    def is_modifier(self) -> bool:
        """Whether it wraps another piece of its kind."""
        return not parameters_of(self.factory).keys().isdisjoint(WRAPPED[self.kind])

    def described(self) -> str:
        """Its kind, name and distribution, for messages."""
        return f"The {self.kind} {self.name!r} of {self.plugin.distribution}"

    def says(self) -> str:
        """The first line of what its factory says of itself, and of the piece that it wraps."""
        own = (inspect.getdoc(getattr(self.factory, "func", self.factory)) or "").partition("\n")[0]
        return own if self.inner is None else f"{own} {self.inner.says()}".strip()

    def options(self) -> dict[str, Option]:
        """The options of the factory, by name, and those of the piece that it wraps.

        Raises UserMistake where both have an option of one name.
        """
        own = self._own_options()
        inner = {} if self.inner is None else self.inner.options()
        for name in inner:
            if name in own:
                raise UserMistake(f"{self.described()} does not fit together: two parts have an option {name!r}.")
        return own | inner

    def _own_options(self) -> dict[str, Option]:
        options = options_of(self.factory, GIVEN[self.kind] + WRAPPED[self.kind])
        if "name" in options:
            raise TypeError("an option must not be called 'name', which is the piece's own")
        return options

    def resolve(self, values: Mapping[str, Any], prefix: str | None = None) -> dict[str, Any]:
        """All options, given ones converted and the rest at their defaults.

        prefix: what their settings begin with; None: the kind.
        """
        prefix = prefix or self.kind
        try:
            options = self.options()
        except TypeError as error:
            raise AlsegError(
                f"The {self.kind} {self.name!r} of {self.plugin.distribution} is broken: {error}."
            ) from error
        for name in values:
            if name not in options:
                has = nearest(name, options) or "; it has none"
                raise UserMistake(f"The {self.kind} {self.name!r} has no option {name!r}{has}.")
        resolved = {}
        for name, option in options.items():
            if name in values:
                resolved[name] = convert(f"{prefix}.{name}", values[name], option.type)
            elif option.default is MISSING:
                flag = f"--{name}" if name == "data" else f"-o {prefix}.{name}=..."
                raise UserMistake(f"The {self.kind} {self.name!r} needs {flag}.")
            else:
                resolved[name] = option.default
        return resolved

    def build(self, options: Mapping[str, Any], **given: Any) -> Any:
        """Call the factory with its options and what the core gives; an error names the plugin."""
        parameters = parameters_of(self.factory)
        taken = {name: value for name, value in given.items() if name in parameters}
        if self.inner is not None:
            own, (piece, new_piece) = self._own_options(), WRAPPED[self.kind]
            new = partial(self.inner.build, {k: v for k, v in options.items() if k not in own}, **given)
            options = {k: v for k, v in options.items() if k in own}
            taken |= {piece: new()} if piece in parameters else {new_piece: new}
        try:
            made = self.factory(**options, **taken)
        except AlsegError:
            raise
        except ImportError as error:
            raise UserMistake(f"{self.described()} needs a library that is not installed: {error}.") from error
        except (Exception, SystemExit) as error:
            raise AlsegError(f"{self.described()} failed to start: {type(error).__name__}: {error}.") from error
        if made is None:
            raise AlsegError(f"{self.described()} gave nothing: its factory returns None.")
        return made


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

    def notify(self, hook: str, **arguments: Any) -> list[str]:
        """Call a life-cycle hook on every plugin; what a plugin raises is returned as a sentence."""
        failures = []
        for name, plugin in self.manager.list_name_plugin():
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            try:
                self.manager.subset_hook_caller(hook, others)(**arguments)
            except Exception as error:
                failures.append(f"The plugin {name} failed in {hook}: {type(error).__name__}: {error}")
        return failures


def load_plugins(
    files: Iterable[Path] = (),
    third_party: bool = True,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
) -> Registry:
    """A registry of the installed plugins and of single files; one that fails is listed with its error."""
    manager = pluggy.PluginManager("alseg")
    manager.add_hookspecs(hookspecs)
    registry = Registry(manager, third_party=third_party)
    found = importlib.metadata.entry_points(group="alseg") if entry_points is None else entry_points
    seen: set[tuple[str, str]] = set()
    for entry_point in sorted(found, key=lambda e: (_distribution(e)[0] != FIRST_PARTY, e.name, e.value)):
        distribution, version = _distribution(entry_point)
        if (entry_point.name, distribution) in seen or (not third_party and distribution != FIRST_PARTY):
            continue
        seen.add((entry_point.name, distribution))
        _add(registry, Plugin(entry_point.name, distribution, version), entry_point.load)
    for file in files:
        path = Path(file).absolute()
        registry.files.append(path)
        if not path.is_file():
            raise UserMistake(f"There is no plugin file {file}.")
        _add(registry, Plugin(path.stem, str(file), "-"), partial(_module, path))
    return registry


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
        module = load()
        registry.manager.register(module, name=f"{plugin.distribution}:{plugin.name}")
        _check_hooks(registry.manager, module)
        pieces = list(_pieces(registry.manager, plugin, module))
        if not registry.manager.get_hookcallers(module):
            raise AlsegError("it implements no hook; is @hookimpl missing?")
    except (Exception, SystemExit) as error:
        if module is not None and registry.manager.is_registered(module):
            registry.manager.unregister(module)
        text = str(error).strip().splitlines()
        reason = " ".join(line.strip() for line in text[:4])
        plugin.status, plugin.error = "failed", f"{type(error).__name__}: {reason}".rstrip(".: ")
        return
    registry.pieces += pieces


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
