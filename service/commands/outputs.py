"""Where a command is to write what it finds: looked at before the work, so that no work is lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import typer

from service.commands.failure import CommandError
from service.commands.loads import USAGE


def check_folder(folder: Path) -> None:
    """See that files could be written in a folder, or that it could be made. Raises `CommandError`."""
    nearest = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    if not nearest.is_dir():
        raise CommandError(f"--out: {nearest} is no folder", USAGE)
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise CommandError(f"--out: {nearest} cannot be written to: {error.strerror}", USAGE) from error


def check_file(path: Path) -> None:
    """See that a file could be written, also where its folder is still to be made. Raises `CommandError`."""
    if path.is_dir():
        raise CommandError(f"--out: {path} is a folder", USAGE)
    check_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder where there is none, and say so, for a name may be a slip. Raises `OSError`."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        typer.echo(f"--out: made the folder {folder.resolve()}", err=True)
