"""`pareto doctor`: what is wrong here, before anything is served."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from service.commands.failure import CommandError
from service.commands.options import Config, Models, settings_from

_MARKS = {"fine": ("ok", "green"), "note": ("note", "yellow"), "broken": ("broken", "bold red")}


def doctor(
    models: Models = None,
    config: Config = None,
    port: Annotated[
        int | None, typer.Option("--port", "-p", metavar="N", help="Port to look at.", show_default=False)
    ] = None,
) -> None:
    """Look at packages, machine, settings, repository and port; exit code 1 where something is broken.

    Where nothing is, the last line says how to serve what was looked at.
    """
    settings = settings_from(config, models=models, port=port)
    from rich.console import Console
    from rich.text import Text

    from service.doctor import examine
    from service.finding import Verdict

    console = Console()
    broken = noted = 0
    is_running = False
    for finding in examine(settings):
        is_running |= finding.subject == "port" and finding.verdict is Verdict.NOTE
        mark, style = _MARKS[finding.verdict]
        broken += finding.verdict is Verdict.BROKEN
        noted += finding.verdict is Verdict.NOTE
        console.print(Text(f"{mark:<7}", style=style), Text(f"{finding.subject:<11} {finding.text}"), soft_wrap=True)
    if broken:
        raise CommandError(f"{broken} thing{'s are' if broken > 1 else ' is'} broken here, see above")
    with_notes = f", {noted} note{'s' if noted > 1 else ''}" if noted else ""
    given = {"--config": config, "--models": models, "--port": port}
    flags = [part for flag, value in given.items() if value is not None for part in (flag, str(value))]
    if is_running:
        console.print(f"nothing is broken{with_notes}", highlight=False, soft_wrap=True)
        return
    serve = f"`{shlex.join(['pareto', 'serve', *flags])}`"
    said = serve if flags else f"`make serve` in a checkout, or {serve}"
    console.print(f"nothing is broken{with_notes}: next {said}", highlight=False, soft_wrap=True)
