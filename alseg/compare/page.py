"""The comparison's page, which opens from disk with nothing to fetch, and its tables and figures as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import alseg
from alseg.compare.comparison import Comparison, Difference, Published
from alseg.compare.figures import NAMES, draw
from alseg.compare.groups import group, read_runs
from alseg.compare.tables import (
    Rows,
    area_csv,
    area_rows,
    cost_rows,
    difference_rows,
    differences_csv,
    diversity_csv,
    diversity_rows,
    markdown,
    miou_rows,
    published_rows,
    run_rows,
    settings_rows,
    summary_csv,
)
from alseg.compare.words import conclusions
from alseg.errors import AlsegError
from alseg.report.drawn import Drawn, write_figures
from alseg.report.page import themed
from alseg.report.template import template
from alseg.writing import write_whole

__all__ = ["PAGE", "Published", "write_comparison"]

PAGE = "comparison.html"
FIGURES = "figures"


def write_comparison(
    runs: Sequence[Path],
    out: Path,
    *,
    title: str = "",
    names: Mapping[str, str] | None = None,
    random: Mapping[str, str],
    baseline: str | None = None,
    published: Sequence[Published] = (),
    note: str = "",
) -> Path:
    """Write `out`/comparison.html on runs, finished or not, with its figures and tables beside it.

    Reads the runs' files only, takes no lock. names: a run folder's resolved path -> its strategy's name.
    random: the pieces of the random baseline (kind -> name). baseline: a strategy's name, to take differences
    from besides random's. published: figures to stand beside these. Returns the page's path. Raises UserMistake
    for runs that cannot be compared and for an unknown baseline.
    """
    views = read_runs(runs)
    try:
        comparison = Comparison(group(views, random, names), baseline)
        figures = {drawn.name: drawn for drawn in draw(comparison, published)}
        files = _tables(comparison, published, title, note)
        page = _page(comparison, figures.values(), published, title, note)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise AlsegError(f"The files of the runs do not fit together ({type(error).__name__}: {error}).") from error
    out.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(out / name, text.encode("utf-8", "replace"))
    write_figures(out / FIGURES, figures, NAMES)
    write_whole(out / PAGE, page.encode("utf-8", "replace"))
    return out / PAGE


def _tables(comparison: Comparison, published: Sequence[Published], title: str, note: str) -> dict[str, str]:
    """The text of each file."""
    parts = [f"# {title or 'Comparison'}", *([note] if note else []), *conclusions(comparison)]
    for heading, rows in _sections(comparison, published):
        parts += [f"## {heading}", markdown(rows)]
    return {
        "summary.csv": summary_csv(comparison),
        "differences.csv": differences_csv(comparison),
        "area.csv": area_csv(comparison),
        "diversity.csv": diversity_csv(comparison),
        "summary.md": "\n\n".join(part.rstrip("\n") for part in parts) + "\n",
    }


def _sections(comparison: Comparison, published: Sequence[Published]) -> list[tuple[str, Rows]]:
    """The tables with their headings; those with nothing in them are left out."""
    baseline = comparison.baseline
    found = [("Mean IoU in %, by pixels asked per image", miou_rows(comparison))]
    found += [("Differences from random, points of mean IoU", difference_rows(comparison.from_random))]
    if baseline is not None:
        heading = f"Differences from {baseline.name}, points of mean IoU"
        found += [(heading, difference_rows(comparison.from_baseline))]
    areas = comparison.area_differences(comparison.grouped.random_of)
    found += [("Area under the budget curve", area_rows(comparison))]
    found += [("Differences in area from random, points of mean IoU", difference_rows(areas))]
    if baseline is not None:
        heading = f"Differences in area from {baseline.name}, points of mean IoU"
        found += [(heading, difference_rows(comparison.area_differences(lambda _: baseline)))]
    found += [("Distinct classes per image, and their difference from random", diversity_rows(comparison))]
    found += [("Diversity and cost", cost_rows(comparison))]
    found += [("Published figures beside these", published_rows(comparison, published))]
    return [(heading, rows) for heading, rows in found if len(rows) > 1]


def _page(
    comparison: Comparison,
    figures: Iterable[Drawn],
    published: Sequence[Published],
    title: str,
    note: str,
) -> str:
    drawn = [{"svg": themed(one.svg, one.name), "caption": one.caption, "wide": _is_wide(one)} for one in figures]
    first = comparison.asking[0] if comparison.asking else comparison.grouped.strategies[0]
    run = next(iter(first.runs.values()))
    return template(Path(__file__).with_name("page.html")).render(
        title=title or "Comparison",
        dataset=run.piece("dataset"),
        split=run.record.get("split"),
        note=note,
        conclusions=conclusions(comparison),
        figures=drawn,
        sections=_sections(comparison, published),
        settings=settings_rows(comparison) if comparison.grouped.differing else None,
        runs=run_rows(comparison),
        warnings=[*comparison.grouped.warnings, *_identical(comparison)],
        full=bool(comparison.full),
        version=alseg.__version__,
    )


def _is_wide(drawn: Drawn) -> bool:
    return bool(drawn.figure.get_size_inches()[0] > 8)


def _identical(comparison: Comparison) -> list[str]:
    """Differences that are one number over several seeds are no luck."""
    several = [*comparison.from_random, *comparison.from_baseline]
    odd = list(dict.fromkeys(one.strategy.name for one in several if _is_identical(one)))
    return [
        f"{name} differs from its reference by exactly the same number in every seed: do its runs depend on it?"
        for name in odd
    ]


def _is_identical(one: Difference) -> bool:
    found = one.paired
    return bool(one.word in ("better", "worse") and found and found.std is not None and found.std < 1e-12)
