"""What plugins register: pieces, each a name, a factory and its options."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from alseg.calling import failure, named
from alseg.declaring import fault_of
from alseg.errors import AlsegError, UserMistake, stopped
from alseg.lacking import PACKAGE_FILE, install_hint
from alseg.names import nearest
from alseg.options import MISSING, Option, convert, options_of, parameters_of, plain

# kind -> what the core gives its factories, where they take it
GIVEN: dict[str, tuple[str, ...]] = {
    "dataset": (),
    "model": ("classes",),
    "acquirer": (),
    "selector": (),
    "oracle": ("images", "classes", "seed", "run"),
    "term": ("model", "classes"),
    "tracker": (),
    "recipe": (),
    "executor": (),
}
# A factory with one of these parameters is a modifier: it takes another piece of its kind, or what builds one anew.
WRAPPED: dict[str, tuple[str, str]] = {kind: (kind, f"new_{kind}") for kind in GIVEN}


def name_of_file(path: Path) -> str:
    """What a plugin that is a single file is called; a package's file bears the folder's name."""
    return path.parent.name if path.name == PACKAGE_FILE else path.stem


@dataclass
class Plugin:
    """A plugin and how its loading went; `status` is "ok" or "failed".

    warning: what its author should mend though it works. seconds: how long its import took. file: where it is
    installed, what was given as a single file too.
    """

    name: str
    distribution: str
    version: str
    status: str = "ok"
    error: str | None = None
    warning: str | None = None
    seconds: float = 0.0
    file: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a single file, whose path stands for a distribution."""
        return self.version == "-" and self.distribution.endswith(".py")

    @property
    def prefix(self) -> str:
        """By which its pieces are told from others of their name, as in prefix:name."""
        return self.name if self.is_file else self.distribution

    def is_of(self, origin: str) -> bool:
        """Whether it is of this distribution, or this file."""
        return origin in (self.distribution, self.file)

    @property
    def file_name(self) -> str | None:
        """What it is called as a single file, without the folder; None where it is none."""
        return self.name if self.is_file else self.file and name_of_file(Path(self.file))

    def is_called(self, head: str) -> bool:
        """Whether its pieces are called head:name."""
        return self.is_of(head) or self.file_name == head

    @property
    def origin(self) -> str:
        """Its distribution and version, or its file."""
        return self.distribution if self.version == "-" else f"{self.distribution} {self.version}"


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
    registered: str = ""  # the name it was registered under, where `name` says more

    @property
    def own_name(self) -> str:
        """Its name as it was registered, without what it wraps and whose it is."""
        return self.registered or self.name

    @property
    def is_modifier(self) -> bool:
        """Whether it wraps another piece of its kind."""
        return not parameters_of(self.factory).keys().isdisjoint(WRAPPED[self.kind])

    def described(self) -> str:
        """Its kind, name and distribution, for messages."""
        return f"The {self.kind} {self.name!r} of {self.plugin.distribution}"

    def says(self) -> str:
        """The first line of what its factory says of itself, and of the piece that it wraps."""
        own = self.explanation().partition("\n")[0]
        return own if self.inner is None else f"{own} {self.inner.says()}".strip()

    def explanation(self) -> str:
        """All that its factory says of itself."""
        return inspect.getdoc(getattr(self.factory, "func", self.factory)) or ""

    def parts(self) -> list[Piece]:
        """The modifiers that it is made of, from the outermost on, and what they wrap; itself where it is none."""
        return [self] if self.inner is None else [self, *self.inner.parts()]

    def options(self) -> dict[str, Option]:
        """The options of the factory, by name, and those of the pieces that it wraps.

        Where several parts have an option of one name, each is called part.option, as which any may be given. Raises
        UserMistake where the parts are of one name too, BrokenPiece where a factory declares what can be no option.
        """
        found: dict[str, Option] = {}
        for part, names in zip(self.parts(), self._option_names(), strict=True):
            own = part._own_options()
            for name, known_as in names.items():
                if known_as in found:
                    raise UserMistake(
                        f"{self.described()} does not fit together: two parts called {part.own_name!r} have an option "
                        f"{name!r}, and nothing tells them apart."
                    )
                found[known_as] = replace(own[name], name=known_as)
        return found

    def spellings(self) -> dict[str, str]:
        """Every name by which an option may be given, part.option among them, and the one that it is known by."""
        found: dict[str, str] = {}
        for part, names in zip(self.parts(), self._option_names(), strict=True):
            for name, known_as in names.items():
                found |= {known_as: known_as, f"{part.own_name.replace('-', '_')}.{name}": known_as}
        return found

    def by_one_name(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Options by the names that they are known by; as they are where that is no option's, or given by two names."""
        known = self.spellings()
        count = Counter(known.get(name, name) for name in values)
        return {
            known[name] if name in known and count[known[name]] == 1 else name: value for name, value in values.items()
        }

    def _option_names(self) -> list[dict[str, str]]:
        """Of each part, what its options are called among those of all."""
        own = [(part.own_name.replace("-", "_"), part._own_options()) for part in self.parts()]
        count = Counter(name for _, options in own for name in options)
        return [{name: f"{part}.{name}" if count[name] > 1 else name for name in options} for part, options in own]

    def _own_options(self) -> dict[str, Option]:
        wraps = WRAPPED[self.kind]
        try:
            options = options_of(self.factory, GIVEN[self.kind] + wraps)
            fault = fault_of(self.factory, options, wraps, tuple(GIVEN))
        except Exception as error:  # of a type or a default that is somebody's own
            raise self._broken(str(error).rstrip(".")) from error
        if fault:
            raise self._broken(fault)
        return options

    def _broken(self, reason: str) -> BrokenPiece:
        return BrokenPiece(f"{self.described()} (plugin {self.plugin.name}) is broken: {reason}.", reason)

    def resolve(self, values: Mapping[str, Any], prefix: str | None = None) -> dict[str, Any]:
        """All options, given ones and defaults converted alike: as a run has them that goes on from its run.toml.

        prefix: what their settings begin with; None: the kind.
        """
        prefix = prefix or self.kind
        options, values, spellings = self.options(), self.by_one_name(values), self.spellings()
        for name in values:
            if name not in options and name in spellings:
                raise UserMistake(f"{prefix}.{name} and {prefix}.{spellings[name]} are one option: give it once.")
            if name not in options:
                several = [f"{prefix}.{known}" for known in options if known.endswith(f".{name}")]
                has = f"; write {' or '.join(several)}" if several else nearest(name, options) or "; it has none"
                raise UserMistake(f"The {self.kind} {self.name!r} has no option {name!r}{has}.")
        resolved = {}
        for name, option in options.items():
            if name not in values and option.default is MISSING:
                flag = f"--{name}" if name == "data" else f"-o {prefix}.{name}=..."
                raise UserMistake(f"The {self.kind} {self.name!r} needs {flag}.")
            value = values[name] if name in values else plain(option.default)
            resolved[name] = convert(f"{prefix}.{name}", value, option.type)
        return resolved

    def build(self, options: Mapping[str, Any], **given: Any) -> Any:
        """Call the factory with its options and what the core gives; an error names the plugin."""
        parts = self._option_names()
        each = [{own: options[known] for own, known in names.items() if known in options} for names in parts]
        if len(each) == 1:
            each = [dict(options)]  # with what the factory does not know, which it says
        return self._made(each, given)

    def _made(self, each: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Any:
        """The piece, with the options of each of its parts."""
        options, parameters = each[0], parameters_of(self.factory)
        taken = {name: value for name, value in given.items() if name in parameters}
        if self.inner is not None:
            piece, new_piece = WRAPPED[self.kind]
            new = partial(self.inner._made, each[1:], given)
            taken |= {piece: new()} if piece in parameters else {new_piece: new}
        try:
            made = self.factory(**options, **taken)
        except UserMistake as mistake:
            if (own := named(self.described(), mistake)) is not mistake:
                raise own from mistake
            raise
        except (AlsegError, KeyboardInterrupt):
            raise
        except ImportError as error:
            to_do = install_hint(error, self.plugin.distribution)
            lacks = f"{self.described()} needs a library that is not installed: {error}{to_do}"
            raise UserMistake(stopped(lacks)) from error
        except BaseException as error:  # a library's panic is no Exception
            raise failure(f"{self.described()} failed to start", error, reads=self.kind == "dataset") from error
        if made is None:
            raise AlsegError(f"{self.described()} gave nothing: its factory returns None.")
        return made


def modifies_another(kind: str, modifier: str) -> UserMistake:
    """What is wrong with a modifier's name alone."""
    return UserMistake(f"The {kind} {modifier!r} modifies another: write {modifier}:NAME.")


class BrokenPiece(AlsegError):
    """A piece whose factory declares what can be no option; `reason` says what, without the piece's name."""

    def __init__(self, sentence: str, reason: str = "") -> None:
        super().__init__(sentence)
        self.reason = reason


def settings_of(recipe: Piece, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a recipe says; AlsegError where that is no mapping from the names of settings to values."""
    made = recipe.build(recipe.resolve(options))
    form = 'it must give a mapping of settings, such as {"train.epochs": 50}'
    if not isinstance(made, Mapping):
        raise AlsegError(f"{recipe.described()} gave {type(made).__name__}; {form}.")
    strange = [key for key in _keys(made) if not isinstance(key, str)]
    if strange:
        raise AlsegError(f"{recipe.described()} gave a setting called {strange[0]!r}; {form}.")
    twice = [name for name, count in Counter(_settings(made)).items() if count > 1]
    if twice:
        raise AlsegError(
            f"{recipe.described()} sets {twice[0]} twice, such as dotted and nested: leave one of them out."
        )
    if any(name.partition(".")[0] == "recipe" for name in _settings(made)):
        raise AlsegError(f"{recipe.described()} names a recipe, which a run takes from its user alone: leave it out.")
    return made


def _settings(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The dotted names of what a table sets, once for each time."""
    for key, value in table.items():
        name = f"{before}{key.replace('-', '_')}"
        if isinstance(value, Mapping):
            yield from _settings(value, f"{name}.")
        else:
            yield name


def _keys(table: Mapping[Any, Any]) -> Iterator[Any]:
    for key, value in table.items():
        yield key
        if isinstance(value, Mapping):
            yield from _keys(value)
