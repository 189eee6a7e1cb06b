"""What can and what cannot be concluded, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from alseg.compare.comparison import FEWER, MORE, Cell, Comparison, Difference, tested
from alseg.compare.statistics import BETTER, ONE_SEED, SAME, SHARED, WORSE
from alseg.compare.tables import class_interval

MOST_NAMED = 4


def conclusions(comparison: Comparison) -> list[str]:
    """Sentences on the differences from random and from the baseline; first what is told, then what is not."""
    said = []
    baseline = comparison.baseline
    of_random, of_baseline = comparison.grouped.random_of, lambda _: baseline
    if comparison.only_asked:
        said += _on_diversity(comparison)
    elif comparison.unscored:
        said.append("There is no mean IoU, as no image to evaluate on has a mask: see what was asked.")
    if comparison.from_random:
        said += _on(_seen(comparison, comparison.from_random), "random")
        said += _on_areas(comparison.area_differences(of_random), "random")
    if baseline is not None:
        said += _on(_seen(comparison, comparison.from_baseline), baseline.name)
        said += _on_areas(comparison.area_differences(of_baseline), baseline.name)
    without = [o.name for o in comparison.asking if comparison.grouped.random_of(o) is None]
    if without:
        said.append(f"There is no random baseline with the same other settings for {_list(without)}.")
    missing = [one.name for one in comparison.asking if not comparison.cells[one.name]]
    if missing:
        said.append(f"No round is finished yet in {_list(missing)}.")
    if said:
        return said
    alone = (
        "one strategy, and no random baseline" if len(comparison.asking) < 2 else "no round after the shared first one"
    )
    return [f"There is nothing to compare: {alone}."]


def _seen(comparison: Comparison, differences: Sequence[Difference]) -> list[Difference]:
    """Those to speak of: rounds without a mean IoU, such as those that were only asked, need no excuse each."""
    return [one for one in differences if one.paired or not (comparison.only_asked or comparison.unscored)]


def _on_diversity(comparison: Comparison) -> list[str]:
    """A sentence a strategy and budget that was asked, on the distinct classes per image."""
    differences = comparison.classes_from_random
    found = {(one.strategy.name, one.pixels): one for one in differences}
    cells = [cell for one in comparison.asking for cell in comparison.cells[one.name] if cell.round > 0]
    said = ["Nothing was trained after the first round: what is compared is what was asked."]
    said += [_classes(c, found.get((c.strategy.name, c.pixels))) for c in cells if c.classes.mean is not None]
    count = len(tested(differences))
    return said + ([_corrected(count, "random", "have more or fewer classes")] if count else [])


def _classes(cell: Cell, one: Difference | None) -> str:
    seeds = f"{cell.classes.seeds} seed{'s' if cell.classes.seeds > 1 else ''}"
    said = f"Asked up to {cell.pixels:.4g} pixels an image, {cell.strategy.name} has {cell.classes.mean:.2f} distinct "
    said += f"classes among an image's pixels of that asking (mean of {seeds})"
    if one is None or one.paired is None:
        return f"{said}."
    if one.paired.low is None:
        return f"{said}, {one.paired.mean:+.2f} from random in the one seed in common: nothing can be said on that."
    words = {MORE: f"{MORE} than random", FEWER: f"{FEWER} than random"}.get(
        one.word, "not distinguishable from random"
    )
    return f"{said}: {words} ({one.paired.mean:+.2f}, 95 % interval {class_interval(one.paired)})."


def _corrected(count: int, reference: str, outcome: str) -> str:
    return (
        f"{count} comparison{'s' if count > 1 else ''} with {reference} {'are' if count > 1 else 'is'} made; "
        f"the chance that chance alone makes even one of them {outcome} is held to 5 % (Holm)."
    )


def _on(differences: Sequence[Difference], reference: str) -> list[str]:
    judged = tested(differences)
    names = list(dict.fromkeys(one.strategy.name for one in judged))
    said = [_told(name, judged, reference) for name in names if _words(name, judged) - {SAME}]
    same = [name for name in names if _words(name, judged) == {SAME}]
    if same:
        said.append(_not_told(same, len(names), judged, reference))
    single = list(dict.fromkeys(one.strategy.name for one in differences if one.word == ONE_SEED))
    single = [name for name in single if name not in names]
    if single:
        said.append(
            f"{_list(single)}: one seed in common with {reference}, so that nothing can be said on a difference; "
            "what is shown are single runs."
        )
    apart = [name for name, words in _words_of(differences).items() if words == {""}]
    if apart:
        said.append(f"{_list(apart)}: no seed and budget in common with {reference} after the first round.")
    if judged:
        said.append(_corrected(len(judged), reference, "better or worse"))
    return said


def _on_areas(differences: Sequence[Difference], reference: str) -> list[str]:
    """A sentence on all budgets together."""
    judged, parts = tested(differences), []
    for word in (BETTER, WORSE, SAME):
        found = [one for one in judged if one.word == word]
        if found:
            each = _list([f"{one.strategy.name} ({_points(one)})" for one in found], many=True)
            parts.append(f"{word}{'' if word == SAME else ' than ' + reference}: {each}")
    return [f"All budgets together (area under the curve, tests of their own), {'; '.join(parts)}."] if parts else []


def _words_of(differences: Iterable[Difference]) -> dict[str, set[str]]:
    """The words said of each strategy, after the first round."""
    found: dict[str, set[str]] = {}
    for one in differences:
        if one.word != SHARED:
            found.setdefault(one.strategy.name, set()).add(one.word)
    return found


def _words(name: str, judged: Iterable[Difference]) -> set[str]:
    return {one.word for one in judged if one.strategy.name == name}


def _told(name: str, judged: Sequence[Difference], reference: str) -> str:
    own = [one for one in judged if one.strategy.name == name]
    parts, pairs = [], max(one.paired.pairs for one in own if one.paired)
    for word in (BETTER, WORSE):
        at = [one for one in own if one.word == word]
        if at:
            most = max(at, key=lambda one: abs(one.paired.mean) if one.paired else 0)
            others = [one for one in at if one is not most]
            also = f"; also at {_budgets(others)}" if others else ""
            parts.append(f"{word} than {reference} at {_budgets([most])} ({_difference(most)}){also}")
    same = [one for one in own if one.word == SAME]
    rest = f"; no difference can be told at {_budgets(same)}" if same else ""
    return f"With {pairs} seeds, {name} is {' and '.join(parts)}{rest}."


def _not_told(names: Sequence[str], of: int, judged: Sequence[Difference], reference: str) -> str:
    who = _list(names) if len(names) == of or len(names) <= MOST_NAMED else f"the other {len(names)} strategies"
    own = [one for one in judged if one.strategy.name in names and one.paired]
    pairs = max(one.paired.pairs for one in own if one.paired)
    widest = max(own, key=lambda o: max(abs(o.paired.low or 0), abs(o.paired.high or 0)) if o.paired else 0)
    said = f"With {pairs} seeds, no difference from {reference} can be told for {who}. "
    said += "That is no proof that there is none: "
    low, high = (widest.paired.low, widest.paired.high) if widest.paired else (None, None)
    said += f"the intervals reach up to {100 * max(abs(low or 0), abs(high or 0)):.1f} points."
    enough = sorted((one for one in own if one.needed is not None), key=lambda one: one.needed or 0)
    first: dict[str, Difference] = {}  # a strategy's budget that would take the fewest
    for one in enough:
        first.setdefault(one.strategy.name, one)
    nearest = list(first.values())[:MOST_NAMED]
    if nearest:
        each = [f"about {o.needed} for {o.strategy.name} at {_budgets([o])} ({_points(o)})" for o in nearest]
        said += f" Seeds that it would take, were the differences as large as those seen: {'; '.join(each)}."
    return said


def _difference(one: Difference) -> str:
    assert one.paired is not None
    low, high = 100 * (one.paired.low or 0), 100 * (one.paired.high or 0)
    return f"{_points(one)}, 95 % interval {low:+.1f} to {high:+.1f}"


def _points(one: Difference) -> str:
    return "" if one.paired is None else f"{100 * one.paired.mean:+.1f} points"


def _budgets(several: Sequence[Difference]) -> str:
    return f"{_list([f'{one.pixels:.4g}' for one in several if one.pixels is not None])} pixels an image"


def _list(names: Sequence[str], many: bool = False) -> str:
    joint = "; " if any("," in name for name in names) and not many else ", "
    return names[0] if len(names) == 1 else f"{joint.join(names[:-1])} and {names[-1]}"
