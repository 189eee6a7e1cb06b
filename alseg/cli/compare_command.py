"""`alseg compare`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alseg.cli.run_flags import (
    BUDGET,
    CLASSES,
    DATA,
    DATASET,
    DEVICE,
    ENCODER,
    FIRST_PIXELS,
    MODEL,
    ORACLE,
    PIXELS_PER_ROUND,
    PROTOCOL,
    RECIPE,
    ROUNDS,
    SETTING,
    SIZE,
    SPLIT,
    TRACKERS,
    WEIGHTS,
)
from alseg.plugins import Registry

if TYPE_CHECKING:
    from alseg.compare.running import Compared

GRID, RUN, WHERE = "What varies", "What does not", "Where and how"
EPILOG = """Examples:

alseg compare --acquirers margin,entropy,least-confidence --selectors uniform-then-topk,topk-then-uniform --seeds 3

alseg compare --dataset camvid --data CAMVID --acquirers margin,entropy --seeds 5 --out comparisons/camvid

alseg compare --config examples/paper/figure2-left.toml --data CAMVID --weights FILE --out comparisons/figure2

alseg compare --axis train.epochs=12,50 --axis pixels_per_round=1,5,10 --seeds 3

alseg compare runs/margin-* runs/random-* --out comparisons/mine
"""


# flags that are the settings of all runs
OF_RUNS = (
    *("dataset", "data", "classes", "split", "protocol", "model", "encoder", "weights", "oracle"),
    *("first_pixels", "pixels_per_round", "budget", "rounds", "size", "device", "recipe", "trackers"),
)
ALONE = ("runs", "baseline", "out", "as_json")  # what goes with runs that are there


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", epilog=EPILOG)(compare)


def compare(
    context: typer.Context,
    runs: list[Path] = typer.Argument(None, metavar="[RUN...]", help="Instead of a grid: runs that are there."),
    acquirers: str = typer.Option(None, metavar="A,B", help="Acquirers.", rich_help_panel=GRID),
    selectors: str = typer.Option(None, metavar="A,B", help="Selectors, each with each.", rich_help_panel=GRID),
    axis: list[str] = typer.Option(
        [], metavar="KEY=A,B", help="Any setting's values. May be repeated.", rich_help_panel=GRID
    ),
    seeds: str = typer.Option(None, metavar="N", help="So many seeds from 0 on; or 0,3,7.", rich_help_panel=GRID),
    full_supervision: bool = typer.Option(
        None, "--full-supervision", help="Also train on every pixel, the upper line.", rich_help_panel=GRID
    ),
    baseline: str = typer.Option(
        None, metavar="NAME", help="A strategy to compare with besides chance.", rich_help_panel=GRID
    ),
    config: list[Path] = typer.Option(
        [],
        metavar="FILE",
        help="Settings as TOML, the grid in a table `compare`; repeatable.",
        rich_help_panel=RUN,
    ),
    dataset: str = DATASET,
    data: str = DATA,
    classes: str = CLASSES,
    split: str = SPLIT,
    protocol: str = PROTOCOL,
    model: str = MODEL,
    encoder: str = ENCODER,
    weights: str = WEIGHTS,
    oracle: str = ORACLE,
    first_pixels: str = FIRST_PIXELS,
    pixels_per_round: str = PIXELS_PER_ROUND,
    budget: str = BUDGET,
    rounds: str = ROUNDS,
    size: str = SIZE,
    device: str = DEVICE,
    recipe: str = RECIPE,
    trackers: str = TRACKERS,
    option: list[str] = typer.Option(
        [], "-o", metavar="KEY=VALUE", help="Any setting of the runs. May be repeated.", rich_help_panel=RUN
    ),
    executor: str = typer.Option(
        "local", help="What carries out the runs; -o executor.KEY=VALUE.", rich_help_panel=WHERE
    ),
    jobs: str = typer.Option(
        None, metavar="N", help="Runs at once; by default one a GPU, or one for two cores.", rich_help_panel=WHERE
    ),
    keep_models: bool = typer.Option(
        False, "--keep-models", help="Keep the model of every round, not just the last.", rich_help_panel=WHERE
    ),
    ask_only: bool = typer.Option(
        False, "--ask-only", help="Train the first rounds only and compare what is asked next.", rich_help_panel=WHERE
    ),
    commands: bool = typer.Option(
        False, "--commands", help="Only print an `alseg run` command a run, for a job array.", rich_help_panel=WHERE
    ),
    out: Path = typer.Option(
        None, metavar="DIR", help="The comparison's folder; by default `comparison`.", rich_help_panel=WHERE
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON.", rich_help_panel=WHERE),
) -> None:
    """Run a grid of strategies and seeds, and say which is better and whether that is more than noise.

    Chance is always among them. Runs that share a first round train it once; what is finished is not done
    again: the same command goes on after an interruption, and with more seeds or strategies does what is missing.
    """
    from alseg.cli.alone import result_alone
    from alseg.compare.request import understood
    from alseg.compare.running import compare_grid, compare_runs
    from alseg.config import with_assignments
    from alseg.paths import expanded

    registry: Registry = context.obj
    place = expanded(out or "comparison")
    if runs:
        _refuse_flags_of_a_grid(context)
        _show(compare_runs(runs, out, baseline=baseline, registry=registry), as_json)
        return
    flags = {
        SETTING.get(name, name): value
        for name, value in context.params.items()
        if name in OF_RUNS and value is not None
    }
    request = understood(
        config,
        with_assignments(flags, option),
        acquirers=acquirers,
        selectors=selectors,
        axes=axis,
        seeds=seeds,
        full_supervision=full_supervision,
        baseline=baseline,
        executor=executor,
        jobs=jobs,
        keep_models=keep_models,
        ask_only=ask_only,
    )
    if commands:
        _refuse_what_commands_do_not_use(context, request.ask_only)
        from alseg.compare.commands import commands_of

        for line in commands_of(registry, request, place):
            typer.echo(line)
        return
    with _live(as_json) as live, result_alone(as_json):
        result = compare_grid(request, place, registry=registry, live=live)
    _show(result, as_json)


def _refuse_flags_of_a_grid(context: typer.Context) -> None:
    """UserMistake for a flag that runs which are there have no use for."""
    from alseg.errors import UserMistake

    name = next((name for name in context.params if name not in ALONE and _stated(context, name)), None)
    if name is not None:
        flag = f"--{name.replace('_', '-')}"
        raise UserMistake(f"{flag} is for a grid of runs to be made, and runs that are there were given.")


def _refuse_what_commands_do_not_use(context: typer.Context, ask_only: bool) -> None:
    """UserMistake for what a printed `alseg run` command cannot hold."""
    from alseg.errors import UserMistake

    if ask_only:
        raise UserMistake("--commands gives whole runs, and --ask-only trains first rounds alone: give one of them.")
    for name in ("executor", "jobs"):
        if _stated(context, name):
            raise UserMistake(f"--commands only prints commands, and --{name} carries them out: give one of them.")


def _stated(context: typer.Context, name: str) -> bool:
    """Whether somebody gave a parameter on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


@contextlib.contextmanager
def _live(as_json: bool) -> Iterator[Any]:
    """A live view where stderr is a terminal, None elsewhere."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:
        yield live


def _show(result: Compared, as_json: bool) -> None:
    """The table of strategies and budgets and where the page is; then what failed."""
    if as_json:
        facts = {"comparison": str(result.page), "summary": result.rows, "failed": result.failed, "note": result.note}
        typer.echo(json.dumps({**facts, "waiting": result.waiting}))
    else:
        _table(result.rows)
        if result.note:
            typer.echo(result.note)
        typer.echo(f"comparison: {result.page}")
    if result.failed or result.waiting:
        from alseg.compare.running import said_of_waiting
        from alseg.errors import AlsegError, Waiting

        if not result.failed:
            raise Waiting(said_of_waiting(result.waiting))
        name, error = next(iter(result.failed.items()))
        waits = f" {len(result.waiting)} wait for answers." if result.waiting else ""
        raise AlsegError(
            f"{len(result.failed)} of the runs failed, the first of them {name}: {error.rstrip('.')}.{waits} The same "
            "command tries them again."
        )


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.table import Table

    from alseg.cli.display import whole

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("strategy", "pixels/image", "seeds", "mIoU %", "difference", "verdict", "classes asked"):
        table.add_column(title, justify="left" if title in ("strategy", "verdict") else "right")
    for row in rows:
        classes = row["classes_per_image"]
        table.add_row(
            row["strategy"],
            str(row["pixels_per_image"]),
            str(row["seeds"]),
            _percent(row["miou_mean"]) + (f" ± {_percent(row['miou_std'])}" if row["miou_std"] is not None else ""),
            _percent(row["difference"], "+.1f"),
            row["verdict"],
            "-" if classes is None else f"{classes:.2f}",
        )
    whole(table).print(table)


def _percent(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(100 * value, form)
