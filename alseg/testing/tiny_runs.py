"""A finished run of two rounds on tiny images, made by the engine itself."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from alseg.errors import UserMistake
from alseg.plugins import Registry, load_plugins
from alseg.testing.tiny import NAME, PLUGIN


def tiny_registry(files: Path | str | Iterable[Path | str] = ()) -> Registry:
    """The installed plugins, the tiny dataset and model, and plugins that are single files, one or several."""
    return load_plugins([PLUGIN, *([files] if isinstance(files, Path | str) else files)])


def tiny_run(
    folder: Path | str,
    *,
    plugins: Path | str | Iterable[Path | str] = (),
    registry: Registry | None = None,
    **settings: Any,
) -> Path:
    """Run two rounds on the tiny dataset with the tiny model and give the folder.

    settings: those of a run, a dot written as two underscores: acquirer="entropy", train__epochs=3, or as
    **{"train.epochs": 3}. plugins: a single file or several, to name their pieces; commands on the run then take the
    same --plugin, and --plugin alseg/testing/tiny.py (`alseg.testing.tiny.PLUGIN`).
    """
    from alseg.api import run

    if plugins and registry is not None:
        raise UserMistake("tiny_run takes plugins= or registry=, which has its plugins already: give one of them.")
    given = {key.replace("__", "."): value for key, value in settings.items()}
    known = {"dataset": NAME, "model": NAME, "recipe": NAME, "rounds": 2, **given}
    with one_thread():
        return run(known, out=folder, registry=registry or tiny_registry(plugins)).folder


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in one thread inside: several are slower on tiny images, and far slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
