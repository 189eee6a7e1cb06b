"""The report: one page that opens from disk, with nothing to fetch."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import alseg
from alseg.colours import heat
from alseg.errors import AlsegError, UserMistake
from alseg.imagefiles import MADE, encoded
from alseg.paths import expanded
from alseg.plugins import Registry, load_plugins
from alseg.report.answer_figures import draw_answers, draw_efforts
from alseg.report.drawn import Drawn, write_figures
from alseg.report.figures import GRID, INK, MUTED, NAMES, draw_comparison, draw_run, run_names
from alseg.report.reading import RunView, refuse_unlike
from alseg.report.sections import answer_sections, labelling_facts, over_seeds
from alseg.report.table import short, table_rows
from alseg.report.template import template
from alseg.store import read_lines
from alseg.writing import write_whole

PAGE = "report.html"
FIGURES = "figures"

# what runs of one report have in common
TOGETHER: Mapping[str, Callable[[RunView], Any]] = {
    "datasets": lambda view: view.piece("dataset"),
    "classes": lambda view: view.classes,
}


class Mark(NamedTuple):
    """An asked pixel in a sample image, in its pixels."""

    x: float
    y: float
    colour: str
    name: str
    round: int


def write_report(runs: Sequence[Path], out: Path, files: bool = True, registry: Registry | None = None) -> Path:
    """Write `out`/report.html on one run or several, and with `files` its figures as PNG and SVG beside it.

    Reads the runs' files only, takes no lock, and may be called while they go on. registry: the plugins whose
    acquirers say in a line what their utility is; by default the first-party ones. Returns the page's path.
    """
    views, out = [RunView.read(run) for run in runs], expanded(out)
    refuse_unlike(views, TOGETHER, "give each a report of its own")
    try:
        page, figures = _page(views, registry or load_plugins(third_party=False))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        names = ", ".join(str(run) for run in runs)
        raise AlsegError(f"The files of {names} do not fit together ({type(error).__name__}: {error}).") from error
    try:
        _write(out, page, figures if files else None, views)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserMistake(f"Cannot write the report to {out}: {error.strerror}; give another --out.") from error
    return out / PAGE


def _write(out: Path, page: str, figures: Mapping[str, Drawn] | None, views: Sequence[RunView]) -> None:
    """The page, and the figures beside it where there are to be any."""
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / PAGE, page.encode("utf-8", "replace"))
    if figures is not None:
        write_figures(out / FIGURES, figures, NAMES if len(views) == 1 else ())
        if len(views) == 1:
            write_whole(out / FIGURES / MADE, _state(views[0].folder.path))  # last: all of it is there


def is_current(run: Path) -> bool:
    """Whether a run's page and figures show all its finished rounds."""
    drawn = run / FIGURES / MADE
    return (run / PAGE).exists() and drawn.exists() and drawn.read_bytes() == _state(run)


def _state(run: Path) -> bytes:
    rounds = run / "rounds.jsonl"
    return hashlib.sha256(rounds.read_bytes() if rounds.exists() else b"").hexdigest().encode()


def _page(views: Sequence[RunView], registry: Registry) -> tuple[str, dict[str, Drawn]]:
    """The page's text, and its figures by file name."""
    comparison = [*draw_comparison(views), *draw_efforts(views)] if len(views) > 1 else []
    sections, written = [], {drawn.name: drawn for drawn in comparison}
    for number, (view, name) in enumerate(zip(views, run_names(views), strict=True)):
        drawn = [*draw_run(view), *draw_answers(view)]
        safe = re.sub(r"[^\w.-]", "-", view.name)
        prefix = f"{number + 1}-{safe}-" if len(views) > 1 else ""
        written |= {prefix + one.name: one for one in drawn}
        sections.append(_section(view, name, drawn, number) | answer_sections(view, registry))
    page = template(Path(__file__).with_name("page.html")).render(
        title=views[0].name if len(views) == 1 else f"{len(views)} runs",
        comparison=[_figure(drawn, f"all-{drawn.name}") for drawn in comparison],
        overview=_overview(views),
        seeds=over_seeds(views) if len(views) > 1 else [],
        sections=sections,
        version=alseg.__version__,
    )
    return page, written


def _section(view: RunView, name: str, drawn: Iterable[Drawn], number: int) -> dict[str, Any]:
    return {
        "id": f"run-{number}",
        "name": name,
        "title": view.title,
        "facts": _facts(view),
        "rounds": table_rows(view.records),
        "figures": [_figure(d, f"{number}-{d.name}") for d in drawn],
        "samples": _samples(view),
        "legend": list(zip(view.classes, view.colours, strict=False))[:60],
        "settings": sorted(_flat(view.settings).items()),
    }


def _overview(views: Sequence[RunView]) -> list[list[str]]:
    labelled = any(view.acts for view in views)
    rows = [["run", "pieces", "rounds", "pixels/image", "mIoU %", "minutes"]]
    rows[0] += ["labelling minutes", "keys, clicks"] if labelled else []
    for view, name in zip(views, run_names(views), strict=True):
        last, minutes = (view.records[-1] if view.records else None), view.minutes()
        scored = None if last is None else last["miou"]
        cells = [name, view.title, str(len(view.records))]
        cells.append("-" if last is None else short(last["pixels_per_image"]))
        cells.append("-" if scored is None else f"{100 * scored:.1f}")
        cells.append(f"{minutes[-1]:.1f}" if minutes else "-")
        if labelled:
            spent, acts = view.labelling_minutes(), view.acts
            cells += [f"{spent[-1]:.1f}" if spent else "-", str(len(acts)) if acts else "-"]
        rows.append(cells)
    return rows


def _facts(view: RunView) -> list[tuple[str, str]]:
    """The run in a few words."""
    record, facts = view.record, []
    scored = view.scored
    if scored:
        facts.append(("mIoU", f"{100 * scored[-1]['miou']:.1f} % on {scored[-1]['split']}"))
    if view.records:
        facts.append(("labels", f"{view.records[-1]['labelled_pixels']} pixels in {record.get('train_images')} images"))
    facts.append(("rounds finished", str(len(view.records))))
    if view.records:
        facts.append(("computing time", f"{_duration(view.minutes()[-1])} on {view.records[-1]['device']}"))
    return facts + labelling_facts(view)


def _duration(minutes: float) -> str:
    return f"{minutes:.1f} minutes" if minutes >= 1 else f"{60 * minutes:.1f} seconds"


def _figure(drawn: Drawn, unique: str) -> dict[str, str]:
    return {"svg": themed(drawn.svg, unique), "caption": drawn.caption}


def themed(svg: str, unique: str) -> str:
    """An SVG for inclusion in the page: its ink follows the page's colours, its ids are its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (GRID, "--line")):
        svg = re.sub(re.escape(colour), f"var({variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r'\bid="', f'id="{unique}-', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{unique}-", svg)


def _samples(view: RunView) -> list[dict[str, Any]]:
    """A sample image each: its pictures by round as data addresses, and the pixels asked in it."""
    place = view.folder.path / "samples"
    found = []
    for number, line in enumerate(read_lines(place / "index.jsonl")):
        rounds = []
        for record in view.records:
            folder = view.folder.in_round(record["round"], "samples")
            prediction, utility = (folder / f"{number:02}-{kind}.png" for kind in ("prediction", "utility"))
            if prediction.exists() and utility.exists():
                with contextlib.suppress(OSError, ValueError, SyntaxError):  # a picture less is no reason for no page
                    seen = {"prediction": _address(prediction), "utility": _heat(utility)}
                    rounds.append({"round": record["round"], **seen})
        truth, image = place / f"{number:02}-truth.png", place / f"{number:02}-image.jpg"
        if not image.exists() or not rounds:
            continue
        found.append(
            {
                "name": line["image"],
                "height": line["height"],
                "width": line["width"],
                "radius": max(line["height"], line["width"]) / 75,
                "image": _address(image),
                "truth": _address(truth) if truth.exists() else None,
                "rounds": rounds,
                "marks": _marks(view, line["image"]),
            }
        )
    return found


def _marks(view: RunView, image: str) -> list[Mark]:
    colours = dict(zip(view.classes, view.colours, strict=False))
    return [
        Mark(p.x + 0.5, p.y + 0.5, colours.get(p.name or "", "none"), p.name or "can't tell", p.round)
        for p in view.labels
        if p.image == image
    ]


def _address(path: Path, content: bytes | None = None) -> str:
    kind = "jpeg" if path.suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content or path.read_bytes()).decode()}"


def _heat(path: Path) -> str:
    """A picture of levels in the colours of the figures; ValueError where it is damaged."""
    with Image.open(path) as picture:
        coloured = heat(np.asarray(picture.convert("L")))
    return _address(path, encoded(coloured.quantize(64), "PNG"))


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat
