"""The `alseg` command: builds the Typer application from the plugins, and turns errors into sentences."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import typer.core

import alseg
from alseg.cli import (
    annotate_command,
    compare_command,
    datasets_command,
    export_command,
    import_command,
    plugins_command,
    predict_command,
    report_command,
    resume_command,
    run_command,
)
from alseg.cli.alone import result_alone
from alseg.cli.plugin_commands import add_plugin_commands
from alseg.cli.torchrun import check_command, rank
from alseg.errors import (
    MISTAKES,
    AlsegError,
    Unreachable,
    UserMistake,
    disk_sentence,
    notes_of,
    stopped,
)
from alseg.paths import expanded
from alseg.plugins import Registry, load_plugins

EPILOG = """Examples:

alseg run

alseg run --dataset camvid --data CAMVID --weights FILE

alseg plugins
"""

INTERRUPTED = "Interrupted."


class _Commands(typer.core.TyperGroup):
    """Typer's own, but that an interrupted command's last words are said."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Read the words, for which libraries are loaded."""
        with _heard():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Do the command."""
        with _heard():
            return super().invoke(ctx)


def build_app(registry: Registry) -> typer.Typer:
    """The application with the built-in commands and those of plugins."""
    app = typer.Typer(
        name="alseg",
        cls=_Commands,
        help="Active learning for semantic segmentation, one pixel at a time.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "obj": registry},
    )

    @app.callback()
    def root(
        context: typer.Context,
        version: bool = typer.Option(
            False, "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
        plugin: list[Path] = typer.Option(
            [], "--plugin", help="A .py file, or a package's __init__.py, as a plugin. May be repeated."
        ),
        no_third_party: bool = typer.Option(False, "--no-third-party", help="Leave other people's plugins out."),
        trace_hooks: bool = typer.Option(False, "--trace-hooks", help="Show each call of a plugin's hook on stderr."),
    ) -> None:
        # but for --version, the options are here for the help: they were taken before this was built
        check_command(context.invoked_subcommand)

    run_command.add_to(app)
    resume_command.add_to(app)
    annotate_command.add_to(app)
    compare_command.add_to(app)
    report_command.add_to(app)
    predict_command.add_to(app)
    export_command.add_to(app)
    import_command.add_to(app)
    plugins_command.add_to(app)
    datasets_command.add_to(app)
    for sentence in add_plugin_commands(app, registry):
        _say(sentence)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alseg {alseg.__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 a mistake to put right, 3 waiting, 130 interrupted, 1 else."""
    with contextlib.suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` is as good as Ctrl-C
        hang_up = getattr(signal, "SIGHUP", None)  # and so is a terminal that is closed, but under nohup
        if hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN:
            signal.signal(hang_up, signal.default_int_handler)
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows no umlauts is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if rank() == 0:
        sys.exit(run_cli(words))
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = run_cli(words)  # another process of the team speaks for all, but for what ends this one
    sys.exit(code)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise typer.Exit(_interrupted(str(stop) or INTERRUPTED)) from stop


def _interrupted(sentence: str = INTERRUPTED) -> int:
    """Say so; where this process is the command's own, what else is sent to it no longer changes how it ends."""
    if signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
    _say(sentence)
    return 130


def run_cli(words: list[str]) -> int:
    """The exit code of a command line; errors are one sentence on stderr."""
    try:
        rest, files, flags = _plugin_flags(words)
        trace = _say if "--trace-hooks" in flags else None
        with result_alone("--json" in rest):
            registry = load_plugins(files, "--no-third-party" not in flags, trace=trace)
            if "plugins" not in rest[:1]:  # which shows them with their errors
                _refuse_broken(registry, files)
            app = build_app(registry)
        result = app(rest, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except AlsegError as error:
        _end(error, str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.strerror is None:
            return _unexpected(error)
        _end(error, disk_sentence(error))
        return 2 if error.errno in MISTAKES else 1
    except Exception as error:
        return _unexpected(error)


def _refuse_broken(registry: Registry, files: Sequence[Path]) -> None:
    """UserMistake for a file given by --plugin that failed to load; installed plugins that fail harm nobody."""
    given = {str(file.absolute()) for file in files}
    for plugin in registry.plugins:
        if plugin.status == "failed" and given & {plugin.distribution, plugin.file}:
            raise UserMistake(
                stopped(f"The plugin {plugin.file or plugin.distribution} failed to load: {plugin.error}")
            )


def _plugin_flags(words: list[str]) -> tuple[list[str], list[Path], set[str]]:
    """Take --plugin FILE and its like out: they decide which commands and pieces there are."""
    rest: list[str] = []
    files: list[Path] = []
    flags: set[str] = set()
    i = 0
    while i < len(words):
        word = words[i]
        if word == "--plugin":
            i += 1
            if i == len(words):
                raise UserMistake("--plugin takes a .py file: --plugin FILE.")
            files.append(expanded(words[i]))
        elif word.startswith("--plugin="):
            files.append(expanded(word.removeprefix("--plugin=")))
        elif word in ("--no-third-party", "--trace-hooks"):
            flags.add(word)
        else:
            rest.append(word)
        i += 1
    return rest, files, flags


def _unexpected(error: Exception) -> int:
    # what the command-line library raises, whichever copy of it Typer uses
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        explain = getattr(error, "format_message", None)
        if explain is not None and explain():  # a command without any word has shown its help
            _end(error, f"{explain().rstrip('.')}; --help tells more.")
        return code
    first = (str(error).strip() or "no message").splitlines()[0]
    _end(error, f"Something went wrong inside alseg ({type(error).__name__}: {first}); {_logged(error)}.")
    return 1


def _logged(error: Exception) -> str:
    """Write the traceback into a file; where the details are."""
    name = ""
    try:
        handle, name = tempfile.mkstemp(prefix="alseg-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as log:
            traceback.print_exception(error, file=log)
    except OSError as refused:  # such as a full disk, which may be what went wrong
        with contextlib.suppress(OSError):
            os.unlink(name)
        return f"the details could not be written: {refused.strerror}"
    return f"the details are in {name}"


def _end(error: Exception, sentence: str) -> None:
    """What ended the command, and how to go on; a muted process's own error is heard all the same."""
    _say(sentence, *notes_of(error))
    if rank() and not isinstance(error, Unreachable):
        print(f"alseg: Process of rank {rank()}: {sentence}", file=sys.__stderr__, flush=True)


def _say(*sentences: str) -> None:
    for sentence in sentences:
        typer.echo(f"alseg: {sentence}", err=True)
