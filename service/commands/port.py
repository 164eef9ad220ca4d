"""`--runtimes` of `pareto build` and `pareto import`: the variants of a built family for other runtimes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import faults_of_the_build, faults_of_the_repository
from service.commands.published import say_what_was_built

if TYPE_CHECKING:
    from variants.spec import FamilySpec

PORTS_OF_IMPORTS = (
    "what was imported is ported by `pareto import MODEL.onnx --samples FILE.npz --name NAME --runtimes ...`"
)

Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtimes",
        metavar="all|NAME,...",
        help="Also make the variants for other runtimes: openvino, openvino-bf16, torch, litert, onnxruntime-cuda.",
        show_default=False,
    ),
]


def port_one(
    spec: FamilySpec,
    models: Path,
    runtimes: Sequence[str],
    only: str | None = None,
    *,
    batch_tolerance: float | None = None,
    plain: bool = False,
) -> None:
    """Port one built family, and say what came out of it, on the error output. Raises `CommandError`."""
    from variants.repository import Repository

    with faults_of_the_repository(), faults_of_the_build(spec.name):
        from variants.porting.extend import extend_family
        from variants.progress import LineDisplay, open_display

        title = f"porting {spec.name}"
        repository = Repository(models)
        before = repository.active(spec.name)
        display = LineDisplay(title) if plain else open_display(title)
        folder = extend_family(
            spec, repository, runtimes, only=_listed(only or ""), display=display, batch_tolerance=batch_tolerance
        )
    if folder.manifest.revision == before:
        typer.echo(f"{spec.name}: has nothing more to be ported to {', '.join(runtimes)}", err=True)
        return
    say_what_was_built(folder.manifest, folder.path)


def runtimes_named(text: str) -> tuple[str, ...]:
    """Return what --runtimes names, `all` being what this machine has. Raises `CommandError` for one it lacks."""
    with faults_of_the_build("for other runtimes"):
        from variants.porting.extend import all_runtimes, usable_runtimes

        if text == "all":
            return all_runtimes(lambda line: typer.echo(line, err=True))
        return usable_runtimes(_listed(text))


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]
