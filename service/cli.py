"""The console script `pareto`. Faults are one line on the error output; exit code 2 for usage and settings, else 1."""

from __future__ import annotations

from service.interrupts import INTERRUPTED, end_at_once_from_here, raise_from_here

# Before the imports, which take half a second.
end_at_once_from_here()

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from service import __version__
from service.commands.anew import heed_signals
from service.commands.build import build
from service.commands.demo import demo
from service.commands.doctor import doctor
from service.commands.export import export
from service.commands.failure import CommandError
from service.commands.frontier import frontier
from service.commands.import_model import import_model
from service.commands.key import key
from service.commands.loadtest import loadtest
from service.commands.profile import profile
from service.commands.search import search
from service.commands.serve import serve
from service.commands.simulate import simulate

_PLAIN = {
    "Input should be ": "expected ",
    "a valid integer, unable to parse string as an integer": "a whole number",
    "a valid number, unable to parse string as a number": "a number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
}

app = typer.Typer(
    name="pareto",
    help="Serves a family of compressed model variants and picks, for every request, the one that answers it.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (build, search, profile, frontier, export, simulate, serve, key, demo, loadtest, doctor):
    app.command()(command)
app.command("import")(import_model)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pareto {__version__}")
        raise typer.Exit


@app.callback()
def gateway(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options that stand before a command."""
    raise_from_here()


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. `PARETO_DEBUG=1` shows tracebacks."""
    try:
        code = app(list(arguments), prog_name="pareto", standalone_mode=False)
    except CommandError as error:
        return _failed(str(error), error.exit_code)
    except TyperException as error:
        if not error.format_message():  # a command alone: its help was printed, and nothing is wrong with it
            return error.exit_code
        return _failed(f"{_plain(error.format_message()).rstrip('.')} (see pareto --help)", error.exit_code)
    except Abort:
        return _failed("interrupted", INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - a user never sees a traceback
        text = " ".join(str(error).split()) or "no message"
        return _failed(f"internal error: {type(error).__name__}: {text} (PARETO_DEBUG=1 shows where)", 1)
    if code == INTERRUPTED:  # typer has caught the KeyboardInterrupt, and says nothing
        typer.echo("pareto: interrupted", err=True)
    return code if isinstance(code, int) else 0


def _plain(message: str) -> str:
    """What is wrong with a flag, without the words of the library that reads it."""
    for word, plain in _PLAIN.items():
        message = message.replace(word, plain)
    return message


def main() -> None:
    """Run what the command line says, then end the process with its exit code."""
    # So that a build that is told to end removes what it has not finished.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        heed_signals()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = _failed("interrupted", INTERRUPTED)
    sys.exit(code)


def _failed(message: str, exit_code: int) -> int:
    """Say it, one line for each fault."""
    if os.environ.get("PARETO_DEBUG"):
        raise  # noqa: PLE0704 - called while the exception is handled
    for line in message.splitlines():
        typer.echo(f"pareto: {line}", err=True)
    return exit_code


if __name__ == "__main__":
    main()
