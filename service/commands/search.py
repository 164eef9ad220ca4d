"""`pareto search`: better architectures, or better settings of training, than those made by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_build
from service.commands.outputs import check_folder, make_folder

if TYPE_CHECKING:
    from variants.architectures.rung import Rung
    from variants.families.fashion.workbench import ImageWorkbench
    from variants.progress import BuildProgress, Display
    from variants.search.comparison import Comparison

SEARCHABLE = ("fashion",)
STAGES = {"data": 5.0, "search": 300.0, "compare": 300.0}


def search(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help=f"A family to search: {', '.join(SEARCHABLE)}.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier runs among them.")] = 40,
    rung: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Search how to train this rung instead of architectures.", show_default=False
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="How long what was found is trained on all rows.")] = 6,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where a picture of the comparison goes.", show_default=False),
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Search architectures for accuracy and measured latency, and compare with the hand-made ladder.

    Interrupted, it goes on where it was. It chooses by the validation part; the test part is measured once, at the end.
    """
    if family not in SEARCHABLE:
        raise CommandError(f"{family!r} has no architectures to search; families with some: {', '.join(SEARCHABLE)}")
    with faults_of_the_build(family):
        from variants.families import load_family
        from variants.families.fashion import IMAGES
        from variants.families.fashion.workbench import open_workbench
        from variants.progress import BuildProgress, LineDisplay, open_display
        from variants.sources import cache_folder

        chosen = _rung(IMAGES.rungs, rung) if rung is not None else None
        if out is not None:
            check_folder(out)
        title = f"searching {family}"
        display = LineDisplay(title, sys.stderr) if plain else open_display(title)
        with display:
            progress = BuildProgress(STAGES, display)
            progress.begin("data")
            cache = cache_folder()
            at = open_workbench(load_family(family), cache, display.log)
            journal = cache / "search" / f"{family}.journal"
            progress.begin("search")
            if chosen is not None:
                _search_settings(chosen, trials, at, journal, progress, display)
            else:
                compared = _search_architectures(IMAGES.rungs, trials, epochs, at, journal, progress, display)
                if out is not None:
                    _draw(compared, family, out)
            progress.end()


def _search_architectures(
    rungs: tuple[Rung, ...],
    trials: int,
    epochs: int,
    at: ImageWorkbench,
    journal: Path,
    progress: BuildProgress,
    display: Display,
) -> Comparison:
    from variants.search.architectures import ArchitectureSearch
    from variants.search.comparison import compare

    found = ArchitectureSearch().run(
        trials, at.trainer, at.validation, journal, progress.advance, display.log, known=rungs
    )
    progress.begin("compare")
    compared = compare(
        rungs, found, at.trainer, at.test, epochs=epochs, seed=0, advance=progress.advance, log=display.log
    )
    typer.echo(compared.table())
    ladder, searched, both = (f"{1e6 * volume:.2f}" for volume in compared.hypervolumes())
    for line in compared.dominated():
        typer.echo(line)
    typer.echo(f"hypervolume, fraction x microseconds, test part: ladder {ladder}, found {searched}, both {both}")
    spread = compared.spread()
    typer.echo(f"rows and latencies drawn anew: ladder {spread.ladder}, both {spread.both}, gain {spread.gain} %")
    return compared


def _draw(compared: Comparison, family: str, folder: Path) -> None:
    from variants.search.picture import draw_comparison

    try:
        make_folder(folder)
        for suffix in (".png", ".svg"):
            path = folder / f"{family}-search{suffix}"
            draw_comparison(compared, path)
            typer.echo(f"drawn: {path}", err=True)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error


def _search_settings(
    rung: Rung, trials: int, at: ImageWorkbench, journal: Path, progress: BuildProgress, display: Display
) -> None:
    from variants.search.hyperparameters import HyperparameterSearch

    settings, accuracy = HyperparameterSearch().run(
        trials, rung.architecture, at.trainer, journal, progress.advance, display.log
    )
    typer.echo(f"{rung.name}: validation accuracy {100 * accuracy:.2f} % with {settings}")


def _rung(rungs: tuple[Rung, ...], name: str) -> Rung:
    for rung in rungs:
        if rung.name == name:
            return rung
    raise CommandError(f"--rung {name}: there is none; rungs: {', '.join(rung.name for rung in rungs)}", exit_code=2)
