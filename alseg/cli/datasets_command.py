"""`alseg datasets` and `alseg datasets check`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alseg.cli.plugins_command import in_words
from alseg.cli.run_flags import dataset_options
from alseg.errors import AlsegError
from alseg.pieces import Piece
from alseg.plugins import Registry

if TYPE_CHECKING:
    from alseg.dataset_check import SplitCheck
    from alseg.values import Classes

EXAMPLES = """Examples:

alseg datasets --json

alseg datasets check camvid --data CAMVID

alseg datasets check folder --data PHOTOS --classes road,sky --out photos.png
"""
SAMPLES = 6


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(invoke_without_command=True, add_completion=False)
    group.callback(epilog=EXAMPLES)(datasets)
    group.command("check", epilog=EXAMPLES)(check)
    app.add_typer(group, name="datasets")


def datasets(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """List the datasets: what each is, where it is had and what its folder must look like."""
    if context.invoked_subcommand is not None:
        return
    rows = listing(context.obj)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.secho(row["name"], bold=True, nl=False)
        typer.echo(f"  {row['summary']}")
        for line in [*row["description"].splitlines(), f"Options: {in_words(row['options']) or 'none'}."]:
            typer.echo(f"    {line}".rstrip())
        typer.echo()


def listing(registry: Registry) -> list[dict[str, Any]]:
    """A row a dataset; what it says of itself is its factory's docstring: a summary, and the rest."""
    return [_row(piece) for piece in sorted(registry.of("dataset"), key=lambda piece: piece.name)]


def _row(piece: Piece) -> dict[str, Any]:
    summary, _, rest = piece.explanation().partition("\n")
    try:
        options, error = [option.describe() for option in piece.options().values()], None
    except AlsegError as problem:  # another's factory; `alseg plugins` shows it as failed too
        options, error = [], str(problem).rstrip(".")
    return {
        "name": piece.name,
        "distribution": piece.plugin.distribution,
        "summary": summary,
        "description": rest.strip("\n"),
        "options": options,
        "error": error,
    }


def check(
    context: typer.Context,
    name: str = typer.Argument(..., metavar="NAME", help="The dataset's name."),
    data: str = typer.Option(None, metavar="DIR", help="The dataset's folder."),
    classes: str = typer.Option(None, metavar="A,B,C", help="Its classes, where it takes them."),
    option: list[str] = typer.Option([], "-o", metavar="dataset.KEY=VALUE", help="An option of it. May be repeated."),
    out: Path = typer.Option(None, metavar="PNG", help="The picture; it must not exist. By default NAME-samples.png."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Read every image and mask, count what is there, and draw six samples with their masks.

    Exit code 0: a run can use it. 2: one sentence names the first file or setting that is wrong.
    """
    from alseg.cli.alone import result_alone
    from alseg.cli.display import terminal_progress
    from alseg.dataset_check import check_dataset, sample
    from alseg.opened import open_dataset
    from alseg.report.samples import draw_samples

    registry: Registry = context.obj
    piece = registry.find("dataset", name)
    options = piece.resolve(dataset_options("check", data, classes, option))
    picture = _picture(out, name, options)
    with terminal_progress() as progress, result_alone(as_json):
        dataset = open_dataset(piece, options)
        checks = check_dataset(dataset, progress)
        left = dataset.passed_over()
        chosen = sample(checks, SAMPLES)
        draw_samples(dataset, chosen, picture, f"{name}: {len(chosen)} samples and their masks")
    if as_json:
        rows = [split.as_json() for split in checks]
        facts = {"dataset": name, "classes": list(dataset.classes.names), "void": dataset.classes.void}
        typer.echo(json.dumps({**facts, "splits": rows, "passed_over": left, "picture": str(picture)}))
    else:
        _show(dataset.classes, checks, left, picture)


def _picture(out: Path | None, name: str, options: Mapping[str, Any]) -> Path:
    """Where the picture goes; not among the images, of which it would become one.

    What is there is refused; by its default name it is an earlier check's picture, which the new one replaces.
    """
    from alseg.errors import UserMistake
    from alseg.paths import expanded

    path = expanded(out or f"{name.replace(':', '-').replace('/', '-')}-samples.png").absolute()
    if path.suffix.lower() != ".png":
        raise UserMistake(f"The picture {path} is a PNG: give it a name that ends in .png.")
    if out is not None and path.exists():
        raise UserMistake(f"{out} exists: give another --out.")
    if not path.parent.is_dir():
        raise UserMistake(f"There is no folder {path.parent} for the picture.")
    folders = [expanded(value).resolve() for value in options.values() if isinstance(value, Path)]
    if any(path.parent.resolve().is_relative_to(folder) for folder in folders if folder.is_dir()):
        raise UserMistake(f"The picture {path} would lie among the data: give --out another place.")
    return path


def _show(
    classes: Classes, checks: Sequence[SplitCheck], passed_over: Mapping[str, Sequence[str]], picture: Path
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from alseg.dataset_check import notes

    console = Console()
    splits = Table("split", box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("images", "without mask", "sizes"):
        splits.add_column(title, justify="right")
    for split in checks:
        splits.add_row(split.name, str(len(split.keys)), str(len(split.without_mask)), _sizes(split))
    console.print(splits)
    shares = Table("pixels %", box=box.SIMPLE_HEAD, pad_edge=False)
    for split in checks:
        shares.add_column(split.name, justify="right")
    labelled = [sum(split.pixels.values()) + split.void for split in checks]
    for row in (*classes.names, None):
        counts = [split.void if row is None else split.pixels[row] for split in checks]
        cells = (_share(count, total) for count, total in zip(counts, labelled, strict=True))
        shares.add_row(f"(void, {classes.void})" if row is None else row.replace("[", r"\["), *cells)
    if any(labelled):
        console.print(shares)
    for line in notes(checks, classes):
        typer.echo(line)
    for kind, names in passed_over.items():
        typer.echo(f"Passed over, {kind}: {len(names)}, such as {names[0]}.")
    typer.echo(f"picture: {picture}")


def _sizes(split: SplitCheck) -> str:
    sizes = [f"{height}x{width}" for height, width in sorted(split.sizes)]
    return sizes[0] if len(sizes) == 1 else f"{len(sizes)} from {sizes[0]} to {sizes[-1]}"


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.2f}" if total else "-"
