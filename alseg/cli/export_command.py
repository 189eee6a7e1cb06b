"""`alseg export`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from alseg.plugins import Registry

MODEL, LABELS = "Model", "Labels"
EPILOG = """Examples:

alseg export RUN --to model.pt2

alseg export RUN --to model.onnx --size 360x480

alseg export RUN --format coco --out labels.json
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog=EPILOG)(export)


def export(
    context: typer.Context,
    run: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    to: Path = typer.Option(
        None,
        metavar="FILE",
        help="The model: model.pt2 (torch.export) or model.onnx; it must not exist.",
        rich_help_panel=MODEL,
    ),
    round: int = typer.Option(
        None, metavar="N", help="The model of this round; by default the last.", rich_help_panel=MODEL
    ),
    size: str = typer.Option(
        None, metavar="HxW", help="What it sees images at; by default as in evaluation.", rich_help_panel=MODEL
    ),
    format: str = typer.Option(
        None, metavar="csv|coco|label-studio|napari|masks", help="The labels, so.", rich_help_panel=LABELS
    ),
    out: Path = typer.Option(
        None,
        metavar="PATH",
        help="A file; with napari and masks a folder. By default beside RUN.",
        rich_help_panel=LABELS,
    ),
    as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Write a run's model (--to) or its labels (--format) for other programs.

    The model takes float32 images [B, 3, H, W] in [0, 1] and gives logits [B, C, H, W]; what was written is loaded
    again and compared. What a format of labels cannot hold is said.
    """
    from alseg.errors import UserMistake

    if (to is None) == (format is None):
        raise UserMistake("Give one of --to, for the model, and --format, for the labels.")
    if to is not None and out is not None:
        raise UserMistake("--out goes with --format; the model is written to the file of --to.")
    if to is None and (round is not None or size is not None):
        raise UserMistake("--round and --size choose a model; they go with --to.")
    if to is not None:
        _model(context.obj, run, to, round, size, as_json)
    else:
        _labels(context.obj, run, format, out, as_json)


def _model(registry: Registry, run: Path, to: Path, round: int | None, size: str | None, as_json: bool) -> None:
    from alseg import exporting
    from alseg.cli.alone import result_alone
    from alseg.options import convert
    from alseg.settings import PassSize

    seen_at = convert("--size", size, PassSize)
    with result_alone(as_json):
        path = exporting.export_model(run, to, round=round, size=seen_at, registry=registry)
    typer.echo(json.dumps({"model": str(path)}) if as_json else f"model: {path}")


def _labels(registry: Registry, run: Path, format: str, out: Path | None, as_json: bool) -> None:
    from alseg.cli.alone import result_alone
    from alseg.cli.display import show_transfer
    from alseg.interchange.exchange import export_labels

    with result_alone(as_json):
        done = export_labels(run, format, out, registry=registry)
    show_transfer(done, as_json)
