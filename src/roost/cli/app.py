"""The Typer application: one file a command; errors are caught here, once."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from roost.cli.commands import (
    bench,
    diff,
    explain,
    export,
    gpus,
    inspect,
    models,
    plan,
    probe,
    profiles,
    report,
    rules,
    timeline,
)
from roost.cli.commands import run as run_command
from roost.cli.endings import endings
from roost.cli.logs import logs
from roost.cli.screen import flush_or_drop, show_error
from roost.errors import OutOfMemory, RoostError, SaidElsewhere
from roost.foreign_words import tell_of_refused_memory
from roost.option_spelling import at_a_shell
from roost.temporary import sweep

INTERRUPTED = 130  # what Typer makes of one

app = typer.Typer(
    name="roost",
    help="Run diffusion models on GPUs smaller than the model, from a placement plan you can read and trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # panels cut long option names at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("inspect")(inspect.inspect)
app.command("plan")(plan.plan)
app.command("run")(run_command.run)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("explain")(explain.explain)
app.command("export")(export.export)
app.command("timeline")(timeline.timeline)
app.command("diff")(diff.diff)
app.command("models")(models.models)
app.command("model-dir")(models.model_dir)
app.command("gpus")(gpus.gpus)
app.command("probe")(probe.probe)
app.add_typer(profiles.profiles, name="profiles")
app.command("rules")(rules.rules)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # imported here: it would be a fifth of start-up

        typer.echo(f"roost {version('roost')}")
        raise typer.Exit


@app.callback()
def _root(
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Say on stderr what is done meanwhile; -vv says more."),
    ] = 0,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show an error's traceback too; so does ROOST_DEBUG=1.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    logs.begin(verbose, traceback)


def _show_unexpected(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        show_error("a disk, or what stdout goes to, is full; free some space and try again.")
        return
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        show_error("this process may open no more files; raise the limit (ulimit -n) and try again.")
        return
    if isinstance(error, OSError) and _folder_is_gone():
        show_error("the folder that this command was started in is gone; change to another one.")
        return
    where = logs.keep_traceback(error)
    what = f"unexpected {type(error).__name__}: {error}."
    show_error(f"{what} Please report it with the command that led here and {where}.")


def _is_short_of_host_memory(error: BaseException | None) -> bool:
    """Whether it, or what led to it, is the system's refusal of memory; libraries wrap that in errors of their own."""
    while error is not None:
        refused = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        if refused or tell_of_refused_memory(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


@cache
def _command() -> Any:
    """What Typer builds from all commands' signatures; building it takes some ten milliseconds."""
    return typer.main.get_command(app)


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; an error is one line on stderr, and a traceback if asked for."""
    logs.begin()
    sweep()
    try:
        with at_a_shell(arguments):
            code = int(_command()(list(arguments), prog_name="roost", standalone_mode=False) or 0)
        sys.stdout.flush()
    except SaidElsewhere as error:  # also where this process was then ended from outside
        return error.exit_code
    except BaseException as error:  # whatever it is becomes a line and a code
        code = _code_of(error)
    # Typer has turned an interrupt into its code, and libraries may have turned it into an error of theirs.
    if code == INTERRUPTED or (code and endings.first):
        show_error(endings.said)
        return endings.exit_code
    return code


def _code_of(error: BaseException) -> int:
    """Shows the error, unless it is an interrupt, and returns its code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort) or endings.first:
        return INTERRUPTED
    if isinstance(error, RoostError):
        logs.show_traceback(error)
        show_error(str(error))
        return error.exit_code
    if isinstance(error, BrokenPipeError):  # the reader has left (`roost gpus | head`)
        flush_or_drop(sys.stdout)
        return 1
    # Typer's usage errors share no public base class over its versions, but all can format themselves.
    usage = getattr(error, "format_message", None)
    if usage is not None:
        _show_usage(error, usage())
        return 2
    if not isinstance(error, Exception):  # SystemExit and the like
        raise error
    if _is_short_of_host_memory(error):
        show_error("host memory ran out; free some, or raise the limit that this process runs under.")
        return OutOfMemory.exit_code
    _show_unexpected(error)
    return 1


def _show_usage(error: BaseException, text: str) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text)
    else:
        show_error(text)
