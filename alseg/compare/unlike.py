"""What was not the same in runs that are compared, though their settings say nothing of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from alseg.report.reading import RunView

if TYPE_CHECKING:
    from alseg.compare.groups import Strategy

VERSIONS = ("alseg", "torch", "torchvision", "timm", "numpy", "python")


def short_rounds(view: RunView) -> str:
    """The rounds between a run's first and last that asked what was left of a budget that was raised later."""
    usual, asked = view.settings.get("pixels_per_round"), view.folder.asked()
    if usual is None:  # it asks over the whole pool
        return ""
    odd = [(round, pixels) for round, pixels in enumerate(asked[:-1]) if round and pixels != usual]
    return ", ".join(f"{pixels} pixels in round {round}" for round, pixels in odd)


def unlike_schedules(strategies: Sequence[Strategy]) -> list[str]:
    """A sentence on each strategy whose runs asked other numbers of pixels in a round, which ended a budget there."""
    said = []
    for one in strategies:
        asked = [] if one.is_full else [run.folder.asked() for run in one.runs.values()]
        for round, pixels in enumerate(zip_longest(*asked)):
            found = sorted({count for count in pixels if count is not None})
            if len(found) > 1:
                said.append(
                    f"The runs of {one.name} had unlike budgets: they asked {' or '.join(map(str, found))} pixels an "
                    f"image in round {round}, and from there each has figures at budgets of its own."
                )
                break
    return said


def unlike_machines(strategies: Sequence[Strategy]) -> list[str]:
    """What was not the same when the runs were computed; it may change results, and is no reason to split."""
    found: dict[str, dict[str, set[Path]]] = defaultdict(lambda: defaultdict(set))
    mixed: dict[str, list[str]] = defaultdict(list)
    for strategy in strategies:
        own: dict[str, set[str]] = defaultdict(set)
        for run in strategy.runs.values():
            told = [(key, str(run.record[key])) for key in ("device", *VERSIONS) if key in run.record]
            told += [("device", str(record["device"])) for record in run.records if record["device"]]
            for key, value in told:
                found[key][value].add(run.folder.path)
                own[key].add(value)
        for key, values in own.items():
            mixed[key] += [strategy.name] if len(values) > 1 else []
    said = []
    for key, by_value in found.items():
        if len(by_value) > 1:
            counts = "; ".join(f"{value}: {len(runs)} runs" for value, runs in sorted(by_value.items()))
            within = f", also within {'; '.join(mixed[key])}" if mixed[key] else ""
            said.append(f"The runs were not all computed with the same {key} ({counts}){within}.")
    return said
