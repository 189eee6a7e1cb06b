"""Loading plugins, each on its own, and looking up the pieces they register."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from alseg import hookspecs
from alseg.calling import own_words, place_of
from alseg.errors import AlsegError, UserMistake
from alseg.lacking import install_hint
from alseg.pieces import GIVEN, Piece, Plugin, modifies_another, name_of_file
from alseg.plugin_files import files_in_folders, given_files
from alseg.plugin_modules import check_hooks, file_of, hook_problem, imported, is_module_of, module_of, trace_hooks
from alseg.registering import check_registered
from alseg.unknown import like_modifier, unknown

FIRST_PARTY = "alseg"


class Hooks:
    """The hooks of an object, whose own hash and equality are not those by which pluggy tells its plugins apart."""

    def __init__(self, manager: pluggy.PluginManager, of: Any) -> None:
        own = [name for name in dir(of) if manager.parse_hookimpl_opts(of, name) is not None]
        vars(self).update({name: getattr(of, name) for name in own})


@dataclass
class Registry:
    """All plugins and pieces of one plugin manager."""

    manager: pluggy.PluginManager
    plugins: list[Plugin] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)  # plugins that are single files and were loaded
    third_party: bool = True  # whether other people's were let in
    commands: dict[str, list[str]] = field(default_factory=dict)  # that plugins add, by distribution:plugin
    origins: Mapping[str, str] = field(default_factory=dict)  # "kind name" -> distribution whose piece a run took

    def of(self, kind: str) -> Iterator[Piece]:
        """The pieces of a kind."""
        return (piece for piece in self.pieces if piece.kind == kind)

    def recalling(self, record: Any) -> Registry:
        """The same plugins, looked up as a run did whose settings hold this record."""
        pieces = record.get("pieces") if isinstance(record, Mapping) else None
        known = pieces.items() if isinstance(pieces, Mapping) else ()
        return replace(self, origins={key: str(origin) for key, origin in known})

    def find(self, kind: str, name: str) -> Piece:
        """The piece called `name`, `distribution:name` or `modifier:name`.

        Of several distributions that claim a name, alseg's own has it; others are had as `distribution:name`.
        """
        piece = self._found(kind, name)
        if piece.is_modifier and piece.inner is None:
            raise modifies_another(kind, name)
        return piece

    def origins_of(self, names: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Of pieces (kind, name) under bare names, those of other distributions: "kind name" -> distribution."""
        found = [self.find(kind, name) for kind, name in names if ":" not in name]
        others = [piece for piece in found if piece.plugin.distribution != FIRST_PARTY]
        return {f"{piece.kind} {piece.name}": piece.plugin.distribution for piece in others}

    def written(self, piece: Piece) -> str:
        """What a piece is called in settings: its name, after its distribution's where another has the name."""
        others = [p for p in self.of(piece.kind) if p.name == piece.name and p is not piece]
        bare = not others or piece.plugin.distribution == FIRST_PARTY
        return piece.name if bare else self.full_name(piece)

    def full_name(self, piece: Piece) -> str:
        """A piece's name after its distribution's or file's, a file's whole path where its name tells nothing."""
        found = [p for p in self._under(piece.kind, piece.plugin.prefix) if p.name == piece.name]
        prefix = piece.plugin.prefix if len(found) == 1 and found[0] is piece else piece.plugin.distribution
        return f"{prefix}:{piece.name}"

    def _under(self, kind: str, head: str) -> list[Piece]:
        """The pieces that are called head:name: those of a distribution or file.

        A file's name without the folder counts where neither a distribution nor a modifier has it.
        """
        pieces = list(self.of(kind))
        found = [piece for piece in pieces if piece.plugin.is_of(head)]
        if not found and not any(piece.name == head and piece.is_modifier for piece in pieces):
            found = [piece for piece in pieces if piece.plugin.file_name == head]
        return found

    def left_aside(self, names: Iterable[tuple[str, str]]) -> list[Piece]:
        """Other people's pieces under names (kind, name) by which alseg's own are meant."""
        return [p for kind, name in names for p in self.of(kind) if p.name == name and p is not self.find(kind, name)]

    def _found(self, kind: str, name: str) -> Piece:
        found = self._preferred(kind, name, [piece for piece in self.of(kind) if piece.name == name])
        head, colon, rest = name.partition(":")
        if not found and colon:
            own = self._under(kind, head)
            found = [piece for piece in own if piece.name == rest]
            # distribution:modifier:name
            modifier, again, inner = rest.partition(":")
            if not found and again and any(piece.name == modifier for piece in own):
                return self._modified(kind, f"{head}:{modifier}", inner)
            if not found and any(piece.name == head for piece in self.of(kind)):
                return self._modified(kind, head, rest)
        if len(found) == 1:
            return found[0]
        if found:
            claims = " and ".join(sorted({piece.plugin.distribution for piece in found}))
            several = " or ".join(map(self.full_name, found))
            raise UserMistake(f"The {kind} {name!r} is registered by {claims}: write {several} to choose.")
        raise unknown(kind, name, list(self.of(kind)), self.plugins, self.full_name)

    def _preferred(self, kind: str, name: str, found: list[Piece]) -> list[Piece]:
        """Of pieces of one name the one that a run took, or alseg's own; all where neither says which."""
        origin = self.origins.get(f"{kind} {name}")
        if origin is not None:
            exact = [piece for piece in found if piece.plugin.is_of(origin)]
            mine = exact or [piece for piece in found if _is_moved(piece.plugin, origin)]
            if found and not mine:
                whose = " and ".join(sorted({piece.plugin.distribution for piece in found}))
                raise UserMistake(
                    f"The run took the {kind} {name!r} of {origin}, which is not there; that of {whose} is another: "
                    f"install {origin}, or give its file by --plugin."
                )
            return mine
        return [piece for piece in found if piece.plugin.distribution == FIRST_PARTY] or found

    def _modified(self, kind: str, name: str, inner: str) -> Piece:
        modifier = self._found(kind, name)
        if not modifier.is_modifier:
            whole, near = f"{name}:{inner}", like_modifier(name, self.of(kind))
            raise UserMistake(f"There is no {kind} {whole!r}: {name!r} modifies no other{near}.")
        if not inner:
            raise modifies_another(kind, name)
        return replace(modifier, name=f"{name}:{inner}", inner=self.find(kind, inner), registered=modifier.name)

    def hooks_of(self, plugin: Plugin) -> list[str]:
        """The names of the hooks that a plugin implements."""
        module = self.manager.get_plugin(f"{plugin.distribution}:{plugin.name}")
        return sorted(caller.name for caller in self.manager.get_hookcallers(module) or [])

    def plugin_of(self, module: str) -> str | None:
        """distribution:plugin of which a module of this name is a part."""
        names = {name: getattr(plugin, "__name__", "") for name, plugin in self.manager.list_name_plugin()}
        return next((name for name, of in names.items() if of and f"{module}.".startswith(f"{of}.")), None)

    @contextlib.contextmanager
    def joined_by(self, trackers: Mapping[str, Any]) -> Iterator[None]:
        """While it lasts, life-cycle hooks are called on these objects too; named by what they are called."""
        try:
            for name, tracker in trackers.items():
                hooks = Hooks(self.manager, tracker)
                try:
                    self.manager.register(hooks, name=name)
                    check_hooks(self.manager, hooks)
                except (AlsegError, ValueError, pluggy.PluginValidationError) as error:
                    reason = _one_line(self.manager, error)
                    raise AlsegError(f"The {name} cannot hear of a run: {reason}.") from error
                if not self.manager.get_hookcallers(hooks):
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
        return list(self.failures(hook, after=after, **arguments).values())

    def failures(
        self,
        hook: str,
        /,
        *,
        only: Callable[[str], bool] = lambda name: True,
        after: Callable[[str], None] = lambda name: None,
        **arguments: Any,
    ) -> dict[str, str]:
        """As `notify`, the sentences by the names of those that raised; only: who is called, by name.

        Each plugin has dicts and lists of its own, so that what one does with them is not told to the next.
        """
        failures = {}
        for name, plugin in self.manager.list_name_plugin():
            if not only(name):
                continue
            others = [other for other in self.manager.get_plugins() if other is not plugin]
            own = {key: deepcopy(each) if isinstance(each, dict | list) else each for key, each in arguments.items()}
            try:
                with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
                    self.manager.subset_hook_caller(hook, others)(**own)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # pytest.skip and a library's panic are no Exception
                to_do = install_hint(error, name.partition(":")[0]) if isinstance(error, ImportError) else ""
                who = name if name.startswith("tracker ") else f"plugin {name}"
                what = f"{type(error).__name__}: {_one_line(self.manager, error)}".rstrip(": ")
                failures[name] = f"The {who} failed in {hook}: {what}{place_of(error)}{to_do}"
            after(name)
        return failures


def load_plugins(
    files: Path | str | Iterable[Path | str] = (),
    third_party: bool = True,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    trace: Callable[[str], None] | None = None,
) -> Registry:
    """A registry of the installed plugins and of single files; one that fails is listed with its error.

    files: besides those in the folders that the environment variable ALSEG_PLUGINS names; one that is the module of an
    installed plugin is that plugin. third_party: whether other distributions' plugins and those folders count. trace:
    is told each call of a hook in a line.
    """
    manager = pluggy.PluginManager("alseg")
    manager.add_hookspecs(hookspecs)
    if trace is not None:
        trace_hooks(manager, trace)
    registry = Registry(manager, third_party=third_party)
    found = importlib.metadata.entry_points(group="alseg") if entry_points is None else entry_points
    seen: dict[tuple[str, str], tuple[importlib.metadata.EntryPoint, Plugin]] = {}
    for entry_point in sorted(found, key=lambda e: (_distribution(e)[0] != FIRST_PARTY, e.name, e.value)):
        distribution, version = _distribution(entry_point)
        if (entry_point.name, distribution) in seen or (not third_party and distribution != FIRST_PARTY):
            continue
        plugin = Plugin(entry_point.name, distribution, version)
        seen[entry_point.name, distribution] = entry_point, plugin
        _add(registry, plugin, entry_point.load, partial(file_of, entry_point))
    given = [*given_files(files), *(files_in_folders(registry.plugins) if third_party else [])]
    unlike: dict[Path, Path] = {}
    for path in given:
        unlike.setdefault(path.resolve(), path)
    for path in unlike.values():
        twin = next((plugin for entry, plugin in seen.values() if is_module_of(entry, path)), None)
        plugin = twin or Plugin(name_of_file(path), str(path), "-")
        if twin is not None:
            twin.file = str(path)
        else:
            _add(registry, plugin, partial(module_of, path), partial(Path, path))
        if plugin.status == "ok":
            registry.files.append(path)
    return registry


def _distribution(entry_point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    distribution = entry_point.dist
    return (distribution.name, distribution.version) if distribution is not None else ("unknown", "-")


def _add(registry: Registry, plugin: Plugin, load: Callable[[], Any], source: Callable[[], Path | None]) -> None:
    """Import one plugin and let it register; either all of its pieces count or none."""
    registry.plugins.append(plugin)
    module: Any = None
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is the command's own
            module = imported(plugin, load, source)
            registry.manager.register(module, name=f"{plugin.distribution}:{plugin.name}")
            check_hooks(registry.manager, module)
            pieces = list(_pieces(registry.manager, plugin, module))
        if not registry.manager.get_hookcallers(module):
            raise AlsegError("it implements no hook; is @hookimpl missing?")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # pytest.skip and a library's panic are no Exception
        if module is not None and registry.manager.is_registered(module):
            registry.manager.unregister(module)
        plugin.status, plugin.error = "failed", _reason(registry.manager, plugin, error)
        return
    registry.pieces += pieces


def _reason(manager: pluggy.PluginManager, plugin: Plugin, error: BaseException) -> str:
    """Why a plugin failed to load, on one line; what alseg itself found wrong needs no class of error."""
    reason = _one_line(manager, error)
    if isinstance(error, (AlsegError, pluggy.PluginValidationError)):
        return reason
    to_do = install_hint(error, plugin.distribution) if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}: {reason}".rstrip(".: ") + (to_do or place_of(error))


def _one_line(manager: pluggy.PluginManager, error: BaseException) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        return hook_problem(manager, error)
    text = own_words(error).strip().splitlines()
    return " ".join(line.strip() for line in text[:4]).rstrip(".: ")


def _pieces(manager: pluggy.PluginManager, plugin: Plugin, module: Any) -> Iterator[Piece]:
    others = [other for other in manager.get_plugins() if other is not module]
    for kind in GIVEN:
        found: list[Piece] = []

        def register(name: str, factory: Callable[..., Any], kind: str = kind, found: Any = found) -> None:
            check_registered(kind, name, factory)
            if any(piece.name == name for piece in found):
                raise ValueError(f"the {kind} {name!r} is registered twice")
            found.append(Piece(kind, name, factory, plugin))

        given = manager.subset_hook_caller(f"register_{kind}s", others)(register=register)
        if any(inspect.isgenerator(each) for each in given):
            raise TypeError(f"its hook register_{kind}s yields, so that it never runs: it must call register")
        yield from found


def _is_moved(plugin: Plugin, origin: str) -> bool:
    """Whether a single file has the name of the one that a run took a piece of: its folder may be another now."""
    return origin.endswith(".py") and name_of_file(Path(origin)) == plugin.file_name
