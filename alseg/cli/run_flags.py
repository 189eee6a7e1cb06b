"""The flags on the settings of runs and on a dataset, alike for every command that takes them."""

from __future__ import annotations

from typing import Any

import typer

PIECES_PANEL, DATA_PANEL, LABELS_PANEL, TRAINING_PANEL, RUN_PANEL = "Pieces", "Data", "Labels", "Training", "Run"
# flag -> setting, where they differ by more than hyphens
SETTING = {
    "data": "dataset.data",
    "classes": "dataset.classes",
    "encoder": "model.encoder",
    "weights": "model.weights",
}
DATASET: str = typer.Option(None, help="A dataset's name.", rich_help_panel=DATA_PANEL)
DATA: str = typer.Option(None, metavar="DIR", help="The dataset's folder.", rich_help_panel=DATA_PANEL)
DATA_MOVED: str = typer.Option(None, metavar="DIR", help="Where the run's images lie now.")
CLASSES: str = typer.Option(None, metavar="A,B,C", help="Its classes, where it takes them.", rich_help_panel=DATA_PANEL)
SPLIT: str = typer.Option(None, help="val or test: what is evaluated.", rich_help_panel=DATA_PANEL)
PROTOCOL: str = typer.Option(
    None, metavar="honest|paper", help="paper: also the best epoch on test.", rich_help_panel=DATA_PANEL
)
MODEL: str = typer.Option(None, help="A model's name.", rich_help_panel=PIECES_PANEL)
ENCODER: str = typer.Option(None, metavar="TIMM_NAME", help="The model's encoder.", rich_help_panel=PIECES_PANEL)
WEIGHTS: str = typer.Option(None, metavar="FILE|none|default", help="Its weights.", rich_help_panel=PIECES_PANEL)
ORACLE: str = typer.Option(None, help="Who labels them.", rich_help_panel=PIECES_PANEL)
FIRST_PIXELS: str = typer.Option(None, metavar="N", help="Pixels an image, round 0.", rich_help_panel=LABELS_PANEL)
PIXELS_PER_ROUND: str = typer.Option(None, metavar="N", help="And in later rounds.", rich_help_panel=LABELS_PANEL)
BUDGET: str = typer.Option(None, metavar="N", help="And in all.", rich_help_panel=LABELS_PANEL)
ROUNDS: str = typer.Option(None, metavar="N", help="Trainings, at most.", rich_help_panel=TRAINING_PANEL)
SIZE: str = typer.Option(None, metavar="HxW", help="Training and query size.", rich_help_panel=TRAINING_PANEL)
DEVICE: str = typer.Option(None, metavar="auto|cpu|cuda", help="Where to compute.", rich_help_panel=TRAINING_PANEL)
RECIPE: str = typer.Option(None, help="Settings by name; by default the dataset's.", rich_help_panel=RUN_PANEL)
TRACKERS: str = typer.Option(
    None, metavar="A,B|none", help="Where its figures go besides its folder.", rich_help_panel=RUN_PANEL
)


def dataset_options(command: str, data: str | None, classes: str | None, assignments: list[str]) -> dict[str, Any]:
    """The options of a dataset that a command opens by itself; UserMistake for an -o of something else."""
    from alseg.config import parse_assignments
    from alseg.errors import UserMistake

    given = {key: value for key, value in (("data", data), ("classes", classes)) if value is not None}
    for key, value in parse_assignments(assignments).items():
        if not key.startswith("dataset."):
            raise UserMistake(f"{command} takes options of the dataset, -o dataset.NAME=VALUE, not {key}.")
        given[key.removeprefix("dataset.")] = value
    return given
