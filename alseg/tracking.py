"""What a tracker shows of a run, from the arguments of its life-cycle hooks and the run's folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alseg.config import flatten
from alseg.store import RunFolder, read_lines

if TYPE_CHECKING:
    from PIL import Image

RING = ((255, 255, 255), (0, 0, 0))  # a pixel that was asked: a white ring in a black one


def metrics_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a round's record by name, such as miou and iou/road; what is null or no number is left out."""
    found: dict[str, float] = {}
    for name, value in record.items():
        parts = (
            {f"{name}/{part}": each for part, each in value.items()} if isinstance(value, Mapping) else {name: value}
        )
        for part, each in parts.items():
            if isinstance(each, int | float) and not isinstance(each, bool) and name != "round":
                found[part] = float(each)
    return found


def parameters_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """The run's settings flat, as text: train.epochs -> 50; the record of versions and data as record.NAME."""
    flat = flatten({name: value for name, value in settings.items() if name != "record"})
    record = settings.get("record", {})
    for name, value in record.items():
        parts = (
            {f"{name}.{part}": each for part, each in value.items()} if isinstance(value, Mapping) else {name: value}
        )
        flat |= {f"record.{part}": each for part, each in parts.items()}
    return {name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in flat.items()}


def settings_of(folder: str | Path) -> dict[str, Any]:
    """A run's settings as run.toml holds them."""
    return RunFolder(Path(folder)).settings()


def records_of(folder: str | Path) -> list[dict[str, Any]]:
    """The records of the rounds that a run has finished, those of an earlier process too."""
    return RunFolder(Path(folder)).rounds()


def questions_of(folder: str | Path, round: int) -> list[dict[str, Any]]:
    """A round's questions as they are stored: item, image, y, x and what the model thought of each."""
    path = Path(folder) / "rounds" / f"{round:02}" / "questions.jsonl"
    return read_lines(path)


def query_pictures(folder: str | Path, round: int) -> Iterator[tuple[str, Image.Image]]:
    """The run's few sample images with the pixels that a round asked of them, each with the image's name.

    There are none where the run has no report.
    """
    from PIL import Image, ImageDraw

    samples = Path(folder) / "samples"
    index = samples / "index.jsonl"
    asked = questions_of(folder, round)
    for number, sample in enumerate(read_lines(index)):
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
