"""The tables of a comparison: as CSV for programs, as Markdown for a paper's draft, as cells for the page."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alseg.compare.comparison import GOAL, Cell, Comparison, Difference, Published
from alseg.compare.groups import Strategy
from alseg.compare.statistics import REFERENCE, SHARED, Paired, Summary

Rows = list[list[str]]

SUMMARY = (
    *("strategy", "acquirer", "selector", "round", "pixels_per_image", "seeds", "miou_mean", "miou_std", "miou_low"),
    *("miou_high", "difference", "difference_low", "difference_high", "p_value", "p_holm", "verdict", "seeds_needed"),
    *("share_of_full", "paper_miou", "classes_per_image", "classes_per_image_total", "spread", "spread_uniform"),
    *("train_seconds", "acquire_seconds", "labelling_seconds"),
)
WORDS = ("strategy", "acquirer", "selector", "verdict")  # its columns that hold no numbers
DIFFERENCES = (
    *("strategy", "reference", "round", "pixels_per_image", "pairs", "difference", "difference_std"),
    *("difference_low", "difference_high", "p_value", "p_holm", "verdict", "seeds_needed"),
)
AREA = (
    *("strategy", "acquirer", "selector", "from_pixels", "to_pixels", "seeds", "area_mean", "area_std", "area_low"),
    *("area_high", "difference", "difference_low", "difference_high", "p_value", "p_holm", "verdict", "seeds_needed"),
    "pixels_for_95_percent",
)
DIVERSITY = (
    *("strategy", "acquirer", "selector", "round", "pixels_per_image", "seeds", "classes_mean", "classes_std"),
    *("classes_low", "classes_high", "pairs", "difference", "difference_low", "difference_high", "p_value", "p_holm"),
    "verdict",
)


def summary_csv(comparison: Comparison) -> str:
    """A row a strategy and budget; differences are from random with the same other settings."""
    from_random = {(one.strategy.name, one.pixels): one for one in comparison.from_random}
    rows = []
    for strategy in comparison.grouped.strategies:
        for cell in comparison.cells[strategy.name]:
            row = _summary_row(comparison, cell)
            rows.append(row | _tested(from_random.get((strategy.name, cell.pixels))))
    return _csv(SUMMARY, rows)


def _summary_row(comparison: Comparison, cell: Cell) -> dict[str, Any]:
    return {
        **_pieces(cell.strategy),
        "round": cell.round,
        "pixels_per_image": round(cell.pixels, 4),
        "seeds": cell.miou.seeds or len(cell.points),
        **_summarised("miou", cell.miou),
        "verdict": SHARED if cell.is_shared else None,
        "share_of_full": comparison.share_of_full(cell),
        "paper_miou": cell.mean(lambda point: point.paper_miou),
        "classes_per_image": cell.mean(lambda point: point.classes),
        "classes_per_image_total": cell.mean(lambda point: point.classes_total),
        "spread": cell.mean(lambda point: point.spread),
        "spread_uniform": cell.mean(lambda point: point.uniform),
        "train_seconds": cell.mean(lambda point: point.train_seconds),
        "acquire_seconds": cell.mean(lambda point: point.acquire_seconds),
        "labelling_seconds": cell.mean(lambda point: point.labelling_seconds),
    }


def differences_csv(comparison: Comparison) -> str:
    """A row a strategy, budget and reference: random, then the baseline."""
    rows = [
        {
            "strategy": one.strategy.name,
            "reference": one.reference.name,
            "round": one.round,
            "pixels_per_image": None if one.pixels is None else round(one.pixels, 4),
            "pairs": one.paired.pairs if one.paired else 0,
            "difference_std": one.paired.std if one.paired else None,
            **_tested(one),
        }
        for several in (comparison.from_random, comparison.from_baseline)
        for one in several
        if one.strategy.name != one.reference.name
    ]
    return _csv(DIFFERENCES, rows)


def area_csv(comparison: Comparison) -> str:
    """A row a strategy: the area under its budget curve in mIoU, and its difference from random's."""
    from_random = {one.strategy.name: one for one in comparison.area_differences(comparison.grouped.random_of)}
    rows = []
    for one in comparison.areas:
        row = {**_pieces(one.strategy), "from_pixels": one.low, "to_pixels": one.high, "seeds": one.summary.seeds}
        row |= _summarised("area", one.summary) | _tested(from_random.get(one.strategy.name))
        row["verdict"] = REFERENCE if one.strategy.is_random else row.get("verdict")
        rows.append(row | {"pixels_for_95_percent": comparison.nearly_full_at(one.strategy)})
    return _csv(AREA, rows)


def diversity_csv(comparison: Comparison) -> str:
    """A row a strategy and budget: distinct classes per image and their difference from random's."""
    return _csv(DIVERSITY, (_diversity_row(cell, one) for cell, one in _diversity(comparison)))


def _diversity(comparison: Comparison) -> list[tuple[Cell, Difference | None]]:
    """The budgets at which classes were counted, each with its difference from random."""
    from_random = {(one.strategy.name, one.pixels): one for one in comparison.classes_from_random}
    cells = [cell for one in comparison.asking for cell in comparison.cells[one.name] if cell.classes.seeds]
    return [(cell, from_random.get((cell.strategy.name, cell.pixels))) for cell in cells]


def _diversity_row(cell: Cell, one: Difference | None) -> dict[str, Any]:
    row = {**_pieces(cell.strategy), "round": cell.round, "pixels_per_image": round(cell.pixels, 4)}
    row |= {"seeds": cell.classes.seeds, **_summarised("classes", cell.classes)}
    row |= {"pairs": one.paired.pairs if one and one.paired else 0, **_tested(one)}
    return {key: value for key, value in row.items() if key in DIVERSITY}


def _pieces(strategy: Strategy) -> dict[str, Any]:
    return {"strategy": strategy.name, "acquirer": strategy.acquirer, "selector": strategy.selector}


def _summarised(name: str, found: Summary) -> dict[str, Any]:
    parts = ("mean", "std", "low", "high")
    return {f"{name}_{part}": getattr(found, part) for part in parts}


def _tested(one: Difference | None) -> dict[str, Any]:
    if one is None:
        return {}
    row: dict[str, Any] = {"p_holm": one.p_holm, "verdict": one.word, "seeds_needed": one.needed}
    if one.paired is not None:
        row |= {"difference": one.paired.mean, "difference_low": one.paired.low, "difference_high": one.paired.high}
        row["p_value"] = None if one.word == SHARED else one.paired.p
    return row


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return content.getvalue()


def miou_rows(comparison: Comparison) -> Rows:
    """Strategies down, budgets across: mean and standard deviation in %, with a sign for the verdict."""
    signs = {"better": " ▲", "worse": " ▼"}
    words = {(one.strategy.name, one.pixels): one.word for one in comparison.from_random or comparison.from_baseline}
    whole = ["all pixels"] if comparison.full else []
    rows = [["strategy", "seeds", *(f"{pixels:.4g} px" for pixels in comparison.budgets), *whole]]
    for one in comparison.asking:
        cells = [comparison.cell(one, pixels) for pixels in comparison.budgets]
        said = [signs.get(words.get((one.name, pixels), ""), "") for pixels in comparison.budgets]
        shown = [with_std(c.miou) + sign if c else "-" for c, sign in zip(cells, said, strict=True)]
        rows.append([one.name, str(len(one.runs)), *shown, *("" for _ in whole)])
    for one in comparison.full:
        cell = comparison.cells[one.name]
        shown = [with_std(cell[0].miou) if cell else "-"]
        rows.append([one.name, str(len(one.runs)), *[""] * len(comparison.budgets), *shown])
    return rows


def difference_rows(differences: Sequence[Difference]) -> Rows:
    """A row a strategy and budget, in points of mIoU; without the reference itself and the shared first round."""
    rows = [["strategy", "px/image", "pairs", "difference", "95 % interval", "p", "p (Holm)", "verdict", "seeds"]]
    for one in differences:
        if one.paired is None or one.word in (SHARED, REFERENCE):
            continue
        cells = [one.strategy.name, "area" if one.pixels is None else f"{one.pixels:.4g}", str(one.paired.pairs)]
        cells += [f"{100 * one.paired.mean:+.2f}", interval(one.paired.low, one.paired.high, signed=True)]
        rows.append([*cells, p_text(one.paired.p), p_text(one.p_holm), one.word, _needed(one)])
    return rows


def _needed(one: Difference) -> str:
    if one.needed is not None:
        return str(one.needed)
    return "-" if one.paired is None or one.paired.std is None else "> 1000" if one.paired.mean else "-"


def area_rows(comparison: Comparison) -> Rows:
    """The area under each curve, and where 95 % of full supervision is reached."""
    rows = [["strategy", "from, to px", "seeds", "area (mIoU %)", f"{100 * GOAL:.0f} % of all pixels at"]]
    for one in comparison.areas:
        at = comparison.nearly_full_at(one.strategy)
        goal = "-" if not comparison.full else "not reached" if at is None else f"{at:.3g} px"
        span = f"{one.low:.4g}, {one.high:.4g}"
        rows.append([one.strategy.name, span, str(one.summary.seeds), with_std(one.summary), goal])
    return rows


def cost_rows(comparison: Comparison) -> Rows:
    """Diversity and cost at each budget."""
    people = any(p.labelling_seconds for cells in comparison.cells.values() for c in cells for p in c.points.values())
    rows = [
        ["strategy", "px/image", "classes asked", "of all labels", "spread %", "if uniform %", "train s", "choose s"]
    ]
    rows[0] += ["labelling s"] if people else []
    rows[0] += ["of full %"] if comparison.full else []
    for one in comparison.grouped.strategies:
        for cell in comparison.cells[one.name]:
            shares = (cell.mean(lambda p: p.spread), cell.mean(lambda p: p.uniform))
            seconds = [cell.mean(lambda p: p.train_seconds), cell.mean(lambda p: p.acquire_seconds)]
            seconds += [cell.mean(lambda p: p.labelling_seconds)] if people else []
            row = [one.name, "all" if one.is_full else f"{cell.pixels:.4g}"]
            row += [number(cell.mean(lambda p: p.classes), 2), number(cell.mean(lambda p: p.classes_total), 2)]
            row += [number(None if share is None else 100 * share, 1) for share in shares]
            share = comparison.share_of_full(cell)
            last = [number(None if share is None else 100 * share, 1)] if comparison.full else []
            rows.append([*row, *(number(value, 1) for value in seconds), *last])
    return rows


def diversity_rows(comparison: Comparison) -> Rows:
    """The same for the page."""
    rows = [["strategy", "px/image", "seeds", "classes", "difference", "95 % interval", "p", "p (Holm)", "verdict"]]
    for cell, one in _diversity(comparison):
        found = None if one is None or one.word == SHARED else one.paired
        mean = number(cell.classes.mean, 2) + ("" if cell.classes.std is None else f" ± {cell.classes.std:.2f}")
        row = [cell.strategy.name, f"{cell.pixels:.4g}", str(cell.classes.seeds), mean]
        row += ["-" if found is None else f"{found.mean:+.2f}", class_interval(found)]
        p_values = [p_text(found.p), p_text(one.p_holm)] if found and one else ["-", "-"]
        rows.append([*row, *p_values, one.word if one else ""])
    return rows


def class_interval(found: Paired | None) -> str:
    """Of a difference in classes per image."""
    return "-" if found is None or found.low is None else f"{found.low:+.2f} to {found.high:+.2f}"


def published_rows(comparison: Comparison, published: Sequence[Published]) -> Rows:
    """Published figures beside ours at the same budget, last epoch and, where watched, best epoch on test."""
    rows = [["strategy", "px/image", "published %", "ours %", "ours, best epoch on test %", "source", "protocol"]]
    for one in published:
        named = None if one.strategy is None else comparison.grouped.named(one.strategy)
        cell = None
        if named is not None and one.pixels_per_image is not None and not named.is_full:
            near = [c for c in comparison.cells[named.name] if abs(c.pixels / one.pixels_per_image - 1) < 0.005]
            cell = near[0] if near else None
        elif one.pixels_per_image is None:
            full = next(iter(comparison.full), None) if one.strategy is None else named
            full = full if full is not None and full.is_full else None
            cell = next(iter(comparison.cells[full.name]), None) if full else None
        paper = None if cell is None else cell.mean(lambda p: p.paper_miou)
        said = f"{one.miou:.1f}" + ("" if one.std is None else f" ± {one.std:.1f}")
        at = "all" if one.pixels_per_image is None else f"{one.pixels_per_image:.4g}"
        ours = [with_std(cell.miou) if cell else "-", number(None if paper is None else 100 * paper, 1)]
        rows.append([one.strategy or "-", at, said, *ours, one.source, one.protocol])
    return rows


def settings_rows(comparison: Comparison) -> Rows:
    """Strategies down, the settings in which they differ across."""
    keys = list(comparison.grouped.differing)
    rows = [["strategy", *keys]]
    return rows + [[o.name, *(o.settings.get(key, "-") for key in keys)] for o in comparison.grouped.strategies]


def run_rows(comparison: Comparison) -> Rows:
    """How far each strategy's runs are, by seed."""
    seeds = sorted({seed for one in comparison.grouped.strategies for seed in one.runs})
    rows = [["strategy", *(f"seed {seed}" for seed in seeds)]]
    for one in comparison.grouped.strategies:
        rows.append([one.name, *(_rounds(one, seed) for seed in seeds)])
    return rows


def _rounds(strategy: Strategy, seed: int) -> str:
    run = strategy.runs.get(seed)
    return "no run" if run is None else f"{len(run.records)} round{'s' if len(run.records) != 1 else ''}"


def markdown(rows: Rows) -> str:
    """A table in Markdown, the first row its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def with_std(found: Summary) -> str:
    """Mean and standard deviation in %."""
    if found.mean is None:
        return "-"
    return f"{100 * found.mean:.1f}" + ("" if found.std is None else f" ± {100 * found.std:.1f}")


def interval(low: float | None, high: float | None, signed: bool = False) -> str:
    """Two fractions in %."""
    sign = "+" if signed else ""
    return "-" if low is None or high is None else f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def p_text(p: float | None) -> str:
    """A p value to two digits that matter."""
    return "-" if p is None else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def number(value: float | None, digits: int) -> str:
    """A number to some decimals, a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"
