"""`alseg run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from alseg.cli.attendance import ATTENDANCE, BROWSER, HOST, PORT, WAIT, attendance_of
from alseg.plugins import Registry

PIECES, DATA, BUDGET, TRAINING, RUN = "Pieces", "Data", "Labels", "Training", "Run"
EPILOG = """Examples:

alseg run

alseg run --dataset camvid --data CAMVID --acquirer margin --selector topk-then-uniform

alseg run --dataset camvid --data CAMVID --weights FILE --size 180x240 --rounds 2 -o train.epochs=12

alseg run --dataset folder --data PHOTOS --classes road,sky,building --size 480x640

alseg run --dataset folder --data PHOTOS --classes road,sky,building --size 480x640 --oracle human

alseg run --config settings.toml --seed 1 --out runs/second
"""
# flag -> setting, where they differ by more than hyphens
SETTING = {
    "data": "dataset.data",
    "classes": "dataset.classes",
    "encoder": "model.encoder",
    "weights": "model.weights",
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog=EPILOG)(run)


def run(
    context: typer.Context,
    dataset: str = typer.Option(None, help="A dataset's name.", rich_help_panel=DATA),
    data: str = typer.Option(None, metavar="DIR", help="The dataset's folder.", rich_help_panel=DATA),
    classes: str = typer.Option(None, metavar="A,B,C", help="Its classes, where it takes them.", rich_help_panel=DATA),
    split: str = typer.Option(None, help="val or test: what is evaluated.", rich_help_panel=DATA),
    protocol: str = typer.Option(
        None, metavar="honest|paper", help="paper: also the best epoch on test.", rich_help_panel=DATA
    ),
    model: str = typer.Option(None, help="A model's name.", rich_help_panel=PIECES),
    encoder: str = typer.Option(None, metavar="TIMM_NAME", help="The model's encoder.", rich_help_panel=PIECES),
    weights: str = typer.Option(None, metavar="FILE|none|default", help="Its weights.", rich_help_panel=PIECES),
    acquirer: str = typer.Option(None, help="What makes a pixel worth asking.", rich_help_panel=PIECES),
    selector: str = typer.Option(None, help="How n pixels are chosen by that.", rich_help_panel=PIECES),
    oracle: str = typer.Option(None, help="Who labels them.", rich_help_panel=PIECES),
    first_pixels: str = typer.Option(None, metavar="N", help="Pixels an image, round 0.", rich_help_panel=BUDGET),
    pixels_per_round: str = typer.Option(None, metavar="N", help="And in later rounds.", rich_help_panel=BUDGET),
    budget: str = typer.Option(None, metavar="N", help="And in all.", rich_help_panel=BUDGET),
    pool_pixels_per_round: str = typer.Option(
        None, metavar="N", help="Instead: pixels a round over the whole pool.", rich_help_panel=BUDGET
    ),
    cap: str = typer.Option(None, metavar="N", help="And of these in one image, at most.", rich_help_panel=BUDGET),
    labels: str = typer.Option(None, metavar="points|all", help="all: full supervision.", rich_help_panel=BUDGET),
    start_from: str = typer.Option(
        None, metavar="LABELS", help="Train first on these, instead of asking at random.", rich_help_panel=BUDGET
    ),
    void: str = typer.Option(None, metavar="skip|ask", help="May void pixels be asked?", rich_help_panel=BUDGET),
    rounds: str = typer.Option(None, metavar="N", help="Trainings, at most.", rich_help_panel=TRAINING),
    size: str = typer.Option(None, metavar="HxW", help="Training and query size.", rich_help_panel=TRAINING),
    device: str = typer.Option(None, metavar="auto|cpu|cuda", help="Where to compute.", rich_help_panel=TRAINING),
    precision: str = typer.Option(
        None, metavar="auto|float32|bfloat16", help="Of the network.", rich_help_panel=TRAINING
    ),
    deterministic: bool = typer.Option(
        None, "--deterministic", help="The same figures again on a GPU, slower.", rich_help_panel=TRAINING
    ),
    seed: str = typer.Option(None, metavar="N", help="Of every random choice.", rich_help_panel=RUN),
    recipe: str = typer.Option(None, help="Settings by name; by default the dataset's.", rich_help_panel=RUN),
    config: Path = typer.Option(None, metavar="FILE", help="Settings as TOML.", rich_help_panel=RUN),
    option: list[str] = typer.Option(
        [],
        "-o",
        metavar="KEY=VALUE",
        help="Any setting, such as train.epochs=12. May be repeated.",
        rich_help_panel=RUN,
    ),
    out: Path = typer.Option(None, metavar="DIR", help="The run's folder; by default in runs/.", rich_help_panel=RUN),
    wait: bool = WAIT,
    browser: bool = BROWSER,
    host: str = HOST,
    port: int = PORT,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON.", rich_help_panel=RUN),
) -> None:
    """Train, evaluate, choose pixels, have them labelled, train again.

    Without options: a small generated dataset and untrained weights, about a minute on two cores.
    Settings come from the dataset's recipe, then --config, then the flags.
    """
    given = {**context.params}
    flags = {
        SETTING.get(name, name): value
        for name, value in given.items()
        if value is not None and name not in ("option", "config", "out", "json", *ATTENDANCE)
    }
    # heavy from here on: torch
    from alseg.cli.display import result_alone, show_result, terminal_progress
    from alseg.config import parse_assignments, read_toml

    flags |= parse_assignments(option)
    toml: dict[str, Any] = {} if config is None else read_toml(config)
    registry: Registry = context.obj
    with terminal_progress() as progress, result_alone(json):
        from alseg import api

        attendance = attendance_of(wait=wait, browser=browser, host=host, port=port)
        result = api.run(flags, out=out, toml=toml, attendance=attendance, registry=registry, progress=progress)
    show_result(result, json)
