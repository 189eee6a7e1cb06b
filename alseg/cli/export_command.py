"""`alseg export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

EPILOG = """Examples:

alseg export RUN --to model.pt2

alseg export RUN --to model.onnx --size 360x480
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export", epilog=EPILOG)(export)


def export(
    context: typer.Context,
    run: Path = typer.Argument(..., metavar="RUN", help="The run's folder."),
    to: Path = typer.Option(..., metavar="FILE", help="model.pt2 (torch.export) or model.onnx."),
    round: int = typer.Option(None, metavar="N", help="The model of this round; by default the last."),
    size: str = typer.Option(None, metavar="HxW", help="What it sees images at; by default as in evaluation."),
    as_json: bool = typer.Option(False, "--json", help="Print the path as JSON."),
) -> None:
    """Write a run's model as a file that loads without alseg.

    It takes float32 images [B, 3, H, W] in [0, 1] and gives logits [B, C, H, W]. What was written is loaded
    again and compared.
    """
    from typing import get_type_hints

    from alseg import exporting
    from alseg.options import convert
    from alseg.settings import PassSettings

    kinds: dict[str, Any] = get_type_hints(PassSettings, include_extras=True)
    seen_at = None if size is None else convert("--size", size, kinds["size"])
    path = exporting.export_model(run, to, round=round, size=seen_at, registry=context.obj)
    typer.echo(json.dumps({"model": str(path)}) if as_json else f"model: {path}")
