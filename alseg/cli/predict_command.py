"""`alseg predict`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

EPILOG = """Examples:

alseg predict runs/camvid-margin-topk-then-uniform-0 photos --out masks

alseg predict RUN a.jpg b.jpg --out masks --probabilities --utility

alseg predict RUN "photos/*.png" --out masks --size own --tile 512
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict", epilog=EPILOG)(predict)


def predict(
    context: typer.Context,
    run: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    images: list[str] = typer.Argument(..., metavar="IMAGES...", help="Files, folders or globs."),
    out: Path = typer.Option(..., metavar="DIR", help="Where to write; what is there already is kept."),
    overlays: bool = typer.Option(True, "--overlays/--no-overlays", help="The image under its mask, as JPEG."),
    probabilities: bool = typer.Option(False, "--probabilities", help="Of each class, as float16 [C, H, W]."),
    utility: bool = typer.Option(False, "--utility", help="What the acquirer would ask, as float32 [H, W]."),
    round: int = typer.Option(None, metavar="N", help="The model of this round; by default the last."),
    size: str = typer.Option(
        None, metavar="HxW|longer:N|own", help="What the model sees an image at; by default as in evaluation."
    ),
    tile: int = typer.Option(1024, min=32, metavar="N", help="Larger images are seen in tiles of N x N pixels."),
    device: str = typer.Option("auto", metavar="auto|cpu|cuda", help="Where to compute."),
    precision: str = typer.Option("auto", metavar="auto|float32|bfloat16", help="Of the network."),
    as_json: bool = typer.Option(False, "--json", help="Print what was done as JSON."),
) -> None:
    """Segment images with a run's model. The same command goes on after an interruption.

    masks/ gets PNGs of class values with the classes' colours as their palette.
    """
    from alseg.cli.alone import result_alone
    from alseg.cli.display import terminal_progress
    from alseg.errors import UserMistake
    from alseg.settings import PassSize

    with terminal_progress() as progress, result_alone(as_json):
        from alseg import predicting
        from alseg.options import convert

        result = predicting.predict(
            run,
            images,
            out,
            overlays=overlays,
            probabilities=probabilities,
            utility=utility,
            round=round,
            size=convert("--size", size, PassSize),
            tile=tile,
            device=device,
            precision=precision,
            registry=context.obj,
            progress=progress,
        )
    if as_json:
        named = {"done": result.done, "kept": result.kept, "failed": result.failed}
        typer.echo(json.dumps({"out": str(result.folder), **named}))
    else:
        kept = f", {len(result.kept)} were there already" if result.kept else ""
        typer.echo(f"{len(result.done)} images predicted{kept}: {result.folder}")
    if result.failed:
        for sentence in result.failed[1:]:
            typer.echo(f"alseg: {sentence}", err=True)
        raise UserMistake(f"{len(result.failed)} of the images could not be predicted: {result.failed[0]}")
