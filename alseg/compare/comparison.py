"""A comparison as numbers: every strategy at every budget, against its references."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from alseg.compare.groups import Grouped, Strategy
from alseg.compare.measures import Point, budget_of, budgets_of, class_shares, points
from alseg.compare.statistics import (
    BETTER,
    ONE_SEED,
    REFERENCE,
    SHARED,
    WORSE,
    Paired,
    Summary,
    area,
    holm,
    paired,
    reached_at,
    seeds_needed,
    summary,
    verdict,
)
from alseg.errors import UserMistake
from alseg.names import nearest

GOAL = 0.95  # of full supervision
MORE, FEWER = "more classes", "fewer classes"


class Published(NamedTuple):
    """A figure to stand beside ours: mIoU and its standard deviation in %, with what it is from and how measured.

    strategy: None where the figure is nobody's in particular. pixels_per_image: None is all pixels.
    """

    strategy: str | None
    pixels_per_image: float | None
    miou: float
    std: float | None
    source: str
    protocol: str


@dataclass(frozen=True)
class Cell:
    """A strategy at a budget: its runs there (seed -> point)."""

    strategy: Strategy
    pixels: float
    points: Mapping[int, Point]

    @property
    def round(self) -> int:
        """The round that most of its runs have there."""
        return Counter(point.round for point in self.points.values()).most_common(1)[0][0]

    @property
    def is_shared(self) -> bool:
        """Whether it is the first round, whose pixels no strategy chose."""
        return self.round == 0 and not self.strategy.is_full

    @cached_property
    def miou(self) -> Summary:
        """Mean IoU over seeds, fractions."""
        return summary([point.miou for point in self.points.values()])

    @cached_property
    def classes(self) -> Summary:
        """Distinct classes per image, over seeds."""
        return summary([point.classes for point in self.points.values()])

    def mean(self, value: Callable[[Point], float | None]) -> float | None:
        """Something else's mean over the seeds that know it."""
        return summary([value(point) for point in self.points.values()]).mean

    @property
    def seconds(self) -> float | None:
        """Training and choosing up to here, mean over seeds."""
        return self.mean(lambda point: point.seconds)


@dataclass(frozen=True)
class Difference:
    """A strategy less its reference at a budget, or in area (pixels None)."""

    strategy: Strategy
    reference: Strategy
    pixels: float | None
    round: int | None
    paired: Paired | None
    p_holm: float | None = None
    word: str = ""
    needed: int | None = None  # seeds


@dataclass(frozen=True)
class Area:
    """The mean height of a strategy's curve between two budgets, over seeds."""

    strategy: Strategy
    low: float
    high: float
    areas: Mapping[int, float]

    @cached_property
    def summary(self) -> Summary:
        """Over seeds, fractions."""
        return summary(list(self.areas.values()))


class Comparison:
    """What grouped runs say, computed once; `baseline` is a strategy's name, unknown ones are a UserMistake."""

    def __init__(self, grouped: Grouped, baseline: str | None = None) -> None:
        self.grouped = grouped
        self.baseline = None if baseline is None else _baseline(grouped, baseline)
        self._points = {one.name: {seed: points(run) for seed, run in one.runs.items()} for one in grouped.strategies}
        self.asking = [one for one in grouped.strategies if not one.is_full]
        self.full = [one for one in grouped.strategies if one.is_full]
        self.budgets = budgets_of(p.pixels for one in self.asking for ps in self._points[one.name].values() for p in ps)
        self.cells = {one.name: self._cells(one) for one in grouped.strategies}

    def _cells(self, strategy: Strategy) -> list[Cell]:
        """Its budgets, rising."""
        found: dict[float, dict[int, Point]] = defaultdict(dict)
        for seed, several in self._points[strategy.name].items():
            for point in several:  # where two rounds are one budget, the later counts
                found[point.pixels if strategy.is_full else budget_of(point.pixels, self.budgets)][seed] = point
        if strategy.is_full and found:  # one line, whatever the number of known pixels
            last = {seed: point for pixels in sorted(found) for seed, point in found[pixels].items()}
            return [Cell(strategy, max(found), last)]
        return [Cell(strategy, pixels, found[pixels]) for pixels in sorted(found)]

    def cell(self, strategy: Strategy, pixels: float) -> Cell | None:
        """A strategy at a budget."""
        return next((cell for cell in self.cells[strategy.name] if cell.pixels == pixels), None)

    def class_shares(self, strategy: Strategy) -> dict[str, float]:
        """The mean over seeds of each class's share of the chosen pixels, or of the first ones where there are none."""
        found = self._points[strategy.name].values()
        chosen = [[p for p in several if p.round > 0 or not self.has_chosen] for several in found]
        runs = [shares for several in chosen if (shares := class_shares(several))]
        names = {name for run in runs for name in run}
        return {name: sum(run.get(name, 0.0) for run in runs) / len(runs) for name in sorted(names)}

    @cached_property
    def has_chosen(self) -> bool:
        """Whether a run has labels of a round after the first, whose pixels no strategy chose."""
        found = [p for one in self.asking for several in self._points[one.name].values() for p in several]
        return any(point.round > 0 and point.class_counts for point in found)

    @cached_property
    def from_random(self) -> list[Difference]:
        """From random with the same other settings, at every budget."""
        return self._against(self.grouped.random_of)

    @cached_property
    def classes_from_random(self) -> list[Difference]:
        """The same of the distinct classes per image; a family of its own."""
        words = {BETTER: MORE, WORSE: FEWER}
        found = self._against(self.grouped.random_of, lambda point: point.classes)
        return [replace(one, word=words.get(one.word, one.word)) for one in found]

    @cached_property
    def only_asked(self) -> bool:
        """Whether strategies were asked after the first round and none was trained on the answers."""
        later = [p for one in self.asking for c in self.cells[one.name] for p in c.points.values() if p.round > 0]
        return bool(later) and all(point.train_seconds is None for point in later)

    @cached_property
    def unscored(self) -> bool:
        """Whether rounds are finished and none has a mean IoU, for want of masks."""
        found = [p for one in self.asking for c in self.cells[one.name] for p in c.points.values()]
        return bool(found) and all(point.miou is None for point in found)

    @cached_property
    def from_baseline(self) -> list[Difference]:
        """From the chosen baseline."""
        return self._against(lambda _: self.baseline)

    @cached_property
    def areas(self) -> list[Area]:
        """Under each strategy's curve, from its first budget to its last; runs that do not reach it are left out."""
        found = []
        for one in self.asking:
            span = self._span(one)
            if span is not None:
                found.append(Area(one, *span, self._areas(one, *span)))
        return found

    def area_differences(self, of: Callable[[Strategy], Strategy | None]) -> list[Difference]:
        """Paired differences in area from a reference, over the budgets that both have; a family of their own."""
        found = []
        for one in self.asking:
            reference = of(one)
            if reference is None or reference.name == one.name:
                continue
            spans = [span for span in (self._span(one), self._span(reference)) if span is not None]
            low, high = (max(s[0] for s in spans), min(s[1] for s in spans)) if len(spans) == 2 else (0.0, 0.0)
            pair = paired(self._areas(one, low, high), self._areas(reference, low, high)) if high > low else None
            found.append(Difference(one, reference, None, None, pair))
        return _judged(found)

    def share_of_full(self, cell: Cell) -> float | None:
        """A cell's mean IoU over that of full supervision."""
        goal = self._full_miou(cell.strategy)
        return None if cell.miou.mean is None or not goal else cell.miou.mean / goal

    def nearly_full_at(self, strategy: Strategy) -> float | None:
        """The budget at which the mean curve is at 95 % of full supervision; None where it is not reached."""
        goal = self._full_miou(strategy)
        scored = [(c.pixels, c.miou.mean) for c in self.cells[strategy.name] if c.miou.mean is not None]
        return None if not goal else reached_at([x for x, _ in scored], [y for _, y in scored], GOAL * goal)

    def _full_miou(self, strategy: Strategy) -> float | None:
        full = self.grouped.full_of(strategy)
        cells = [] if full is None else self.cells[full.name]
        return cells[0].miou.mean if cells else None

    def _against(
        self,
        of: Callable[[Strategy], Strategy | None],
        value: Callable[[Point], float | None] = lambda point: point.miou,
    ) -> list[Difference]:
        found = []
        for one in self.asking:
            reference = of(one)
            for cell in self.cells[one.name]:
                if reference is None:
                    continue
                if reference.name == one.name:
                    word = SHARED if cell.is_shared else REFERENCE
                    found.append(Difference(one, reference, cell.pixels, cell.round, None, word=word))
                    continue
                other = self.cell(reference, cell.pixels)
                pair = None if other is None else paired(_values(cell, value), _values(other, value))
                word = SHARED if _is_shared(cell, other, reference) else ""
                found.append(Difference(one, reference, cell.pixels, cell.round, pair, word=word))
        return _judged(found)

    def _span(self, strategy: Strategy) -> tuple[float, float] | None:
        scored = [cell.pixels for cell in self.cells[strategy.name] if cell.miou.mean is not None]
        return (scored[0], scored[-1]) if len(scored) > 1 else None

    def _areas(self, strategy: Strategy, low: float, high: float) -> dict[int, float]:
        found = {}
        for seed in strategy.runs:
            curve = [(c.pixels, c.points[seed].miou) for c in self.cells[strategy.name] if seed in c.points]
            known = [(x, y) for x, y in curve if y is not None]
            value = area([x for x, _ in known], [y for _, y in known], low, high)
            if value is not None:
                found[seed] = value
        return found


def _is_shared(cell: Cell, other: Cell | None, reference: Strategy) -> bool:
    """Whether both are, or will be, the first round of runs alike in all that acts before the second."""
    first = cell.is_shared and (other is None or other.is_shared)
    return first and cell.strategy.shared == reference.shared


def _judged(differences: Sequence[Difference]) -> list[Difference]:
    """With Holm's correction over all that are tested, the word for each, and the seeds that it would take."""
    tested = [number for number, one in enumerate(differences) if not one.word and _p(one) is not None]
    corrected = dict(zip(tested, holm([_p(differences[number]) or 0.0 for number in tested]), strict=True))
    judged = []
    for number, one in enumerate(differences):
        if one.word or one.paired is None:
            judged.append(one)
            continue
        p = corrected.get(number)
        needed = seeds_needed(one.paired.mean, one.paired.std, len(tested))
        judged.append(replace(one, p_holm=p, word=verdict(one.paired.mean, p), needed=needed))
    return judged


def _p(difference: Difference) -> float | None:
    return None if difference.paired is None else difference.paired.p


def tested(differences: Iterable[Difference]) -> list[Difference]:
    """Those that a verdict was sought for."""
    return [one for one in differences if one.paired is not None and one.word not in (SHARED, REFERENCE, ONE_SEED, "")]


def _values(cell: Cell, value: Callable[[Point], float | None]) -> dict[int, float | None]:
    return {seed: value(point) for seed, point in cell.points.items()}


def _baseline(grouped: Grouped, name: str) -> Strategy:
    known = [one for one in grouped.strategies if not one.is_full]
    for one in known:
        if spaced(one.name) == spaced(name):
            return one
    raise unknown_baseline(spaced(name), [one.name for one in known])


def spaced(name: str) -> str:
    """A strategy's name with a space after each comma, as the page writes those that it makes."""
    return re.sub(r",\s*", ", ", name)


def unknown_baseline(name: str, known: Iterable[str]) -> UserMistake:
    """What is said of a baseline that is none of the strategies."""
    near = nearest(repr(name), map(repr, known))  # quoted: they have commas of their own
    return UserMistake(f"There is no strategy {name!r} to be the baseline{near}.")
