"""`alseg import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alseg.cli.run_flags import dataset_options

if TYPE_CHECKING:
    from alseg.plugins import Registry
    from alseg.protocols import Dataset

EPILOG = """Examples:

alseg import points.json --out labels.csv

alseg import queries.pkl --out labels.csv --dataset camvid --data CAMVID

alseg import scribbles --thin 8 --out labels.csv --dataset folder --data PHOTOS --classes road,sky,car

alseg run --dataset folder --data PHOTOS --classes road,sky,car --start-from labels.csv
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", epilog=EPILOG)(import_)


def import_(
    context: typer.Context,
    source: Path = typer.Argument(..., metavar="SOURCE", help="A file, or a folder of label images or points layers."),
    out: Path = typer.Option(..., metavar="LABELS.csv", help="Where to write; it must not exist."),
    format: str = typer.Option(
        None,
        metavar="csv|coco|label-studio|napari|masks|pixelpick|run",
        help="By default as the content says.",
    ),
    dataset: str = typer.Option(None, help="The dataset whose images the labels are of."),
    data: str = typer.Option(None, metavar="DIR", help="Its folder."),
    classes: str = typer.Option(None, metavar="A,B,C", help="The classes, where neither source nor dataset says them."),
    option: list[str] = typer.Option([], "-o", metavar="dataset.KEY=VALUE", help="An option of it. May be repeated."),
    thin: int = typer.Option(None, metavar="N", help="Of strokes and areas keep points N pixels apart."),
    ignore_missing: bool = typer.Option(
        False, "--ignore-missing", help="Leave out images that the dataset does not have."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Read labels from another program, as alseg's table of points.

    Label images become points: each labelled pixel one, or with --thin fewer. With a dataset, images are found by
    key, path, file name or stem, and every place and class is checked.
    """
    from alseg.cli.alone import result_alone
    from alseg.cli.display import show_transfer, terminal_progress
    from alseg.interchange.exchange import import_labels

    names = tuple(name.strip() for name in (classes or "").split(",") if name.strip())
    with terminal_progress() as progress, result_alone(as_json):
        opened = _dataset(context.obj, dataset, data, classes, option)
        done = import_labels(
            source,
            out,
            format,
            dataset=opened,
            classes=names,
            thin=thin,
            ignore_missing=ignore_missing,
            progress=progress,
        )
    show_transfer(done, as_json)


def _dataset(
    registry: Registry, name: str | None, data: str | None, classes: str | None, assignments: list[str]
) -> Dataset | None:
    from alseg.errors import UserMistake
    from alseg.opened import open_dataset

    if name is None:
        if data is not None or assignments:
            raise UserMistake("--data and -o are of a dataset: give --dataset NAME as well.")
        return None
    piece = registry.find("dataset", name)
    return open_dataset(piece, piece.resolve(dataset_options("import", data, classes, assignments)))
