"""The rounds as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]


def table_rows(records: Sequence[Record]) -> list[list[str]]:
    """A header and a row a round, as text."""
    rows = [["round", "pixels/image", "mIoU %", "accuracy %", "classes/image", "loss", "train s", "choose s"]]
    for record in records:
        rows.append(
            [
                str(record["round"]),
                f"{record['pixels_per_image']:.4g}",
                _percent(record["miou"]),
                _percent(record["pixel_accuracy"]),
                "-" if record["classes_per_image_total"] is None else f"{record['classes_per_image_total']:.2f}",
                "-" if record["loss"] is None else f"{record['loss']:.3f}",
                f"{record['train_seconds']:.1f}",
                f"{record['acquire_seconds']:.1f}",
            ]
        )
    return rows


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f}"
