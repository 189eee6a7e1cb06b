"""`alseg run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from alseg.cli.attendance import ATTENDANCE, BROWSER, HOST, PORT, WAIT, attendance_of
from alseg.cli.run_flags import (
    BUDGET,
    CLASSES,
    DATA,
    DATASET,
    DEVICE,
    ENCODER,
    FIRST_PIXELS,
    LABELS_PANEL,
    MODEL,
    ORACLE,
    PIECES_PANEL,
    PIXELS_PER_ROUND,
    PROTOCOL,
    RECIPE,
    ROUNDS,
    RUN_PANEL,
    SETTING,
    SIZE,
    SPLIT,
    TRACKERS,
    TRAINING_PANEL,
    WEIGHTS,
)
from alseg.plugins import Registry

EPILOG = """Examples:

alseg run

alseg run --dataset camvid --data CAMVID --acquirer margin --selector topk-then-uniform

alseg run --dataset camvid --data CAMVID --weights FILE --size 180x240 --rounds 2 -o train.epochs=12

alseg run --dataset folder --data PHOTOS --classes road,sky,building --size 480x640

alseg run --dataset folder --data PHOTOS --classes road,sky,building --size 480x640 --oracle human

alseg run --config settings.toml --seed 1 --out runs/second
"""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run", epilog=EPILOG)(run)


def run(
    context: typer.Context,
    dataset: str = DATASET,
    data: str = DATA,
    classes: str = CLASSES,
    split: str = SPLIT,
    protocol: str = PROTOCOL,
    model: str = MODEL,
    encoder: str = ENCODER,
    weights: str = WEIGHTS,
    acquirer: str = typer.Option(None, help="What makes a pixel worth asking.", rich_help_panel=PIECES_PANEL),
    selector: str = typer.Option(None, help="How n pixels are chosen by that.", rich_help_panel=PIECES_PANEL),
    oracle: str = ORACLE,
    first_pixels: str = FIRST_PIXELS,
    pixels_per_round: str = PIXELS_PER_ROUND,
    budget: str = BUDGET,
    pool_pixels_per_round: str = typer.Option(
        None, metavar="N", help="Instead: pixels a round over the whole pool.", rich_help_panel=LABELS_PANEL
    ),
    cap: str = typer.Option(
        None, metavar="N", help="And of these in one image, at most.", rich_help_panel=LABELS_PANEL
    ),
    labels: str = typer.Option(None, metavar="points|all", help="all: full supervision.", rich_help_panel=LABELS_PANEL),
    start_from: str = typer.Option(
        None, metavar="LABELS", help="Train first on these, instead of asking at random.", rich_help_panel=LABELS_PANEL
    ),
    void: str = typer.Option(None, metavar="skip|ask", help="May void pixels be asked?", rich_help_panel=LABELS_PANEL),
    rounds: str = ROUNDS,
    size: str = SIZE,
    device: str = DEVICE,
    precision: str = typer.Option(
        None, metavar="auto|float32|bfloat16", help="Of the network.", rich_help_panel=TRAINING_PANEL
    ),
    deterministic: bool = typer.Option(
        None, "--deterministic", help="The same figures again on a GPU, slower.", rich_help_panel=TRAINING_PANEL
    ),
    seed: str = typer.Option(None, metavar="N", help="Of every random choice.", rich_help_panel=RUN_PANEL),
    recipe: str = RECIPE,
    trackers: str = TRACKERS,
    config: Path = typer.Option(None, metavar="FILE", help="Settings as TOML.", rich_help_panel=RUN_PANEL),
    option: list[str] = typer.Option(
        [],
        "-o",
        metavar="KEY=VALUE",
        help="Any setting, such as train.epochs=12. May be repeated.",
        rich_help_panel=RUN_PANEL,
    ),
    out: Path = typer.Option(
        None, metavar="DIR", help="The run's folder; by default in runs/.", rich_help_panel=RUN_PANEL
    ),
    wait: bool = WAIT,
    browser: bool = BROWSER,
    host: str = HOST,
    port: int = PORT,
    json: bool = typer.Option(False, "--json", help="Print the result as JSON.", rich_help_panel=RUN_PANEL),
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
    from alseg.cli.alone import result_alone
    from alseg.cli.display import show_result, terminal_progress
    from alseg.config import with_assignments
    from alseg.settings_file import read_toml

    flags = with_assignments(flags, option)
    toml: dict[str, Any] = {} if config is None else read_toml(config)
    registry: Registry = context.obj
    with terminal_progress() as progress, result_alone(json):
        from alseg import api

        attendance = attendance_of(wait=wait, browser=browser, host=host, port=port)
        result = api.run(flags, out=out, toml=toml, attendance=attendance, registry=registry, progress=progress)
    show_result(result, json)
