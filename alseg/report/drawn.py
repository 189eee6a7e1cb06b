"""A drawn figure as SVG and PNG, in a page and in files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from alseg.imagefiles import MADE
from alseg.writing import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure, its file name, and what it shows in a sentence."""

    name: str
    caption: str
    figure: Figure

    @cached_property
    def svg(self) -> str:
        """An SVG whose text is text; the same figure gives the same bytes."""
        import matplotlib

        content = io.StringIO()
        quiet = warnings.catch_warnings(action="ignore")  # letters that the font lacks become boxes
        with quiet, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "alseg"}):
            self.figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
        self.figure.set_layout_engine("none")  # it is laid out now; once more would take as long again
        return content.getvalue()

    @cached_property
    def png(self) -> bytes:
        """A PNG on white, laid out as the SVG is."""
        content = io.BytesIO()
        with warnings.catch_warnings(action="ignore"):
            _ = self.svg
            self.figure.savefig(content, format="png", facecolor="white")
        return content.getvalue()


def write_figures(folder: Path, figures: Mapping[str, Drawn], stale: Iterable[str] = ()) -> None:
    """A PNG and an SVG each by file name; those of `stale` names that are not drawn any more are removed.

    The folder is marked as one that alseg made, so that no dataset takes its pictures for images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MADE).touch()
    for name, drawn in figures.items():
        write_whole(folder / f"{name}.png", drawn.png)
        write_whole(folder / f"{name}.svg", drawn.svg.encode())
    for name in set(stale) - figures.keys():
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
