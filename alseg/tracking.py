"""What a tracker shows of a run, from the arguments of its life-cycle hooks and the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alseg.config import flatten, without_record
from alseg.store import QUESTIONS, RunFolder, read_lines

if TYPE_CHECKING:
    from PIL import Image

RING = ((255, 255, 255), (0, 0, 0))  # a pixel that was asked: a white ring in a black one


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a round's record by name, such as miou and iou/road; what is null or no number is left out."""
    values = _spread({name: value for name, value in record.items() if name != "round"}, "/")
    numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in numbers.items() if not isinstance(value, bool)}


def parameters_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The run's settings flat, as text: train.epochs -> 50; the record of versions and data as record.NAME."""
    flat = flatten(without_record(settings))
    flat |= {f"record.{name}": value for name, value in _spread(settings.get("record", {}), ".").items()}
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in flat.items()}


def _spread(table: Mapping[str, Any], mark: str) -> dict[str, Any]:
    """A table's values, and those of the tables in it under both names with the mark between."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= {f"{name}{mark}{part}": each for part, each in value.items()}
        else:
            found[name] = value
    return found


def settings_of(folder: str | Path) -> dict[str, Any]:
    """A run's settings as run.toml holds them."""
    return RunFolder(Path(folder)).settings()


def records_of(folder: str | Path) -> list[dict[str, Any]]:
    """The records of the rounds that a run has finished, those of an earlier process too."""
    return RunFolder(Path(folder)).rounds()


def questions_of(folder: str | Path, round: int) -> list[dict[str, Any]]:
    """A round's questions as they are stored: item, image, y, x and what the model thought of each."""
    return read_lines(RunFolder(Path(folder)).in_round(round, QUESTIONS))


def query_pictures(folder: str | Path, round: int) -> Iterator[tuple[str, Image.Image]]:
    """The run's few sample images with the pixels that a round asked of them, each with the image's name.

    There are none where the run has no report.
    """
    from PIL import Image, ImageDraw

    samples = Path(folder) / "samples"
    asked = questions_of(folder, round)
    for number, sample in enumerate(read_lines(samples / "index.jsonl")):
        with Image.open(samples / f"{number:02}-image.jpg") as file:
            picture = file.convert("RGB")
        pen, radius = ImageDraw.Draw(picture), max(3, picture.width // 80)
        for question in asked:
            if question["image"] != sample["image"] or question["y"] is None:
                continue
            x = (question["x"] + 0.5) * picture.width / sample["width"]
            y = (question["y"] + 0.5) * picture.height / sample["height"]
            for grown, colour in ((0, RING[0]), (1, RING[1])):
                reach = radius + grown
                pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour)
        yield sample["image"], picture
