"""The rounds as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def table_rows(records: Sequence[Record]) -> list[list[str]]:
    """A header and a row a round, as text; where any round has audits, the accuracy there with its 95 % interval.

    "classes so far": distinct classes among all labels of an image, in the mean.
    """
    audited = any(record.get("audit") for record in records)
    rows = [["round", "pixels/image", "mIoU %", "accuracy %", *(["audited %"] if audited else [])]]
    rows[0] += ["classes so far", "loss", "train s", "choose s"]
    for record in records:
        rows.append(
            [
                str(record["round"]),
                short(record["pixels_per_image"]),
                _percent(record["miou"]),
                _percent(record["pixel_accuracy"]),
                *([_interval(record.get("audit"))] if audited else []),
                "-" if record["classes_per_image_total"] is None else f"{record['classes_per_image_total']:.2f}",
                "-" if record["loss"] is None else f"{record['loss']:.3f}",
                f"{record['train_seconds']:.1f}",
                f"{record['acquire_seconds']:.1f}",
            ]
        )
    return rows


def short(number: float) -> str:
    """Two decimals at most: 10, 1.83; its first digit where they would be 0.00."""
    return f"{number:.1g}" if 0 < number < 0.005 else f"{number:.2f}".rstrip("0").rstrip(".")


def _interval(audit: Record | None) -> str:
    if not audit:
        return "-"
    share, low, high = (100 * audit[key] for key in ("accuracy", "low", "high"))
    return f"{share:.1f} ({low:.0f} to {high:.0f})"


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
