"""An executor, a plugin's own command or a recipe that misbehaves is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_runs import HEAD, TINY, told  # noqa: F401

EXECUTOR = """
import alseg.compare.jobs

class Mine:
    def __call__(self, jobs, logs, watch):
        {does}

@hookimpl
def register_executors(register):
    register("mine", lambda: Mine())
"""
COMPARE = [
    "compare",
    "--dataset",
    "alseg-tiny",
    "--model",
    "alseg-tiny",
    "--acquirers",
    "margin",
    "--selectors",
    "topk",
]
COMPARE += ["--executor", "mine"]


@pytest.mark.parametrize(
    ("does", "words", "code"),
    [
        (
            "raise ConnectionError('the cluster is away')",
            "failed: ConnectionError: the cluster is away (FILE, line ",
            1,
        ),
        ("open('/nowhere/cluster.toml')", "failed: No such file or directory: /nowhere/cluster.toml (FILE", 2),
        (
            "watch.finished(jobs[0], 42)",
            "failed: TypeError: watch.finished(job, error) takes None or a sentence on what went wrong, not 42 (FILE",
            1,
        ),
        (
            "pass",
            "returned without a word on 3 of 3 jobs, the first of them first round, seed=0,",
            1,
        ),
    ],
)
def test_an_executor_is_named(told, does, words, code):  # noqa: F811
    said = told(EXECUTOR.format(does=does), *COMPARE, code=code)
    assert f"The executor 'mine' of FILE {words}" in said
    assert said.endswith(". The same command goes on.")


def test_an_executors_own_words_follow_its_name(cli, tmp_path):
    (tmp_path / "mine.py").write_text(
        HEAD + EXECUTOR.format(does="from alseg import UserMistake; raise UserMistake('Log in.')")
    )
    outcome = cli(*TINY, "--plugin", tmp_path / "mine.py", *COMPARE, "--out", tmp_path / "comparison")
    assert (outcome.code, outcome.err) == (2, f"alseg: The executor 'mine' of {tmp_path}/mine.py: Log in.\n")


ORACLE = """
class Mine:
    sees_truth = False

    def ask(self, questions):
        raise ValueError("no line")

    def collect(self):
        return Answers((), False)

@hookimpl
def register_oracles(register):
    register("mine", lambda: Mine())
"""


def test_what_a_job_of_a_comparison_says_of_a_piece_is_in_its_log_with_the_place(cli, tmp_path):
    file, out = tmp_path / "mine.py", tmp_path / "comparison"
    file.write_text(HEAD + ORACLE)
    words = [*COMPARE[:-2], "--oracle", "mine", "--jobs", 1]
    outcome = cli(*TINY, "--plugin", file, *words, "--out", out)
    assert outcome.code == 1
    assert f"The oracle 'mine' of {file} failed in ask: ValueError: no line" in outcome.err
    logs = "".join(path.read_text() for path in Path(out, "logs").glob("first*.log"))
    assert "Traceback" in logs and "in ask" in logs


COMMANDS = """
import typer

@hookimpl
def register_commands(app):
    @app.command("greet")
    def greet(name: str = typer.Option("you", help="Whom.")):
        "Say a word."
        {does}

    more = typer.Typer()
    more.command("inner")(lambda: 1 / 0)
    more.command("other")(lambda: None)
    app.add_typer(more, name="more")
"""


@pytest.mark.parametrize(
    ("does", "words", "code"),
    [
        ("{}[name]", "The command 'greet' of the plugin mine of FILE failed: KeyError: 'you' (FILE, line ", 1),
        ("open(name + '.txt')", "of the plugin mine of FILE failed: No such file or directory: you.txt", 2),
        ("from alseg import UserMistake; raise UserMistake('Give a name.')", "alseg: Give a name.\n", 2),
        ("raise typer.Exit(4)", "", 4),
        ("raise typer.BadParameter('not you')", "alseg: Invalid value: not you; --help tells more.\n", 2),
        ("raise typer.Abort()", "alseg: Interrupted.\n", 130),
        ("typer.echo('hello ' + name)", "", 0),
        ("typer.echo('hello ' + name); return True", "", 0),
        ("typer.echo('hello ' + name); return 130", "", 0),
    ],
)
def test_a_plugins_command_is_named(cli, tmp_path, does, words, code):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + COMMANDS.format(does=does))
    outcome = cli("--plugin", file, "greet")
    assert outcome.code == code, outcome.err
    err = outcome.err.replace(str(file), "FILE")
    assert words in err if words else not err
    assert outcome.out == ("hello you\n" if code == 0 else "")


def test_a_command_of_a_plugins_group_is_named(cli, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + COMMANDS.format(does="pass"))
    outcome = cli("--plugin", file, "more", "inner")
    assert outcome.code == 1
    assert f"alseg: The command 'more inner' of the plugin mine of {file} failed: ZeroDivisionError" in outcome.err
    assert cli("--plugin", file, "more", "other").code == 0
    assert "Whom." in cli("--plugin", file, "greet", "--help").out
    assert "Say a word." in cli("--plugin", file, "--help").out


RECIPE = """
def mine():
    {does}

@hookimpl
def register_recipes(register):
    register("mine", mine)
"""


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("return ['train.epochs']", 'gave list; it must give a mapping of settings, such as {"train.epochs": 50}'),
        ("return 5", "gave int; it must give a mapping"),
        ("pass", "gave nothing: its factory returns None"),
        ("return {3: 4}", "gave a setting called 3; it must give a mapping"),
        ("return {'train': {None: 4}}", "gave a setting called None; it must give a mapping"),
        ("return {}['x']", "failed to start: KeyError: 'x'"),
        (
            "return {'train.epoch': 3}",
            "gave what no run takes: There is no setting 'train.epoch'; did you mean train.ep",
        ),
        ("return {'train': {'epochs': 'many'}}", "gave what no run takes: train.epochs takes a whole number"),
        ("return {'train': {'epochs': 1}, 'train.epochs': 2}", "sets train.epochs twice, such as dotted and nested: l"),
        ("return {'train': {'batch-size': 1, 'batch_size': 2}}", "sets train.batch_size twice"),
        ("return {'recipe': 'shapes'}", "names a recipe, which a run takes from its user alone: leave it out"),
        ("return {'recipe': {'epochs': 3}}", "names a recipe, which a run takes from its user alone"),
        ("return {'acquirer': 'margn'}", "gave what no run takes: There is no acquirer 'margn'; did you mean margin"),
    ],
)
def test_a_recipe_is_named(told, tmp_path, does, words):  # noqa: F811
    words_of_a_run = ["run", "--dataset", "alseg-tiny", "--model", "alseg-tiny", "--recipe", "mine"]
    said = told(RECIPE.format(does=does), *words_of_a_run)
    assert f"The recipe 'mine' of FILE {words}" in said
    assert not (tmp_path / "run").exists()


def test_a_users_own_mistake_beside_a_sound_recipe_is_the_users(cli, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + RECIPE.format(does="return {'train.epochs': 3}"))
    outcome = cli(*TINY, "--plugin", file, "run", "--recipe", "mine", "--out", tmp_path / "run", "-o", "train.epoch=3")
    assert outcome.code == 2
    assert outcome.err.startswith("alseg: There is no setting 'train.epoch'")
    assert "recipe" not in outcome.err
