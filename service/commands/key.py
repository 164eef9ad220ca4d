"""`pareto key`: make an API key and the line that lets it in."""

from __future__ import annotations

from typing import Annotated

import typer

from service.commands.failure import CommandError


def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will show it, for logs.", show_default=False)],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLES", help="infer, read, admin; several divided by commas.")
    ] = "infer",
    tenant: Annotated[
        str | None,
        typer.Option(
            "--tenant", metavar="NAME", help="Whose its requests are. Default: the caller says.", show_default=False
        ),
    ] = None,
) -> None:
    """Make an API key: print the line for the keys file, which has its digest, and for the caller the key itself."""
    from service.key_file import new_key

    try:
        secret, line = new_key(name, role, tenant)
    except ValueError as error:
        raise CommandError(str(error), exit_code=2) from error
    typer.echo(f"the key, shown this once: {secret}", err=True)
    typer.echo(line)
