"""`pareto profile`: how long each variant takes on this machine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import faults_of_the_repository
from service.commands.options import Config, Models, settings_from

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def profile(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="A family in the repository.", show_default=False)],
    full: Annotated[bool, typer.Option("--full", help="More batch sizes and repetitions: minutes.")] = False,
    models: Models = None,
    config: Config = None,
) -> None:
    """Measure a family's latency and memory on this machine, with the options that serve.

    Then compare one slot for each core with one slot for all of them, and say which serves more rows. Where the
    settings have several devices, it is measured with the threads of each.
    """
    from rich.console import Console
    from rich.progress import Progress

    settings = settings_from(config, models=models)
    from service.commands.tables import print_profile
    from variants.executors import compare_executors
    from variants.profiling import profile_family, save_profile
    from variants.repository import Repository
    from variants.runtimes.defaults import unusable
    from variants.session import SessionOptions

    with faults_of_the_repository():
        folder = Repository(settings.models).open(family)
        for name, lack in unusable(folder.manifest).items():
            typer.echo(f"{family}: {name} is left out: {lack}", err=True)
        console = Console(stderr=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            by_threads = {}
            for threads in dict.fromkeys(settings.widths.values()):
                task = bar.add_task(f"profiling {family}, {threads} thread{'s' if threads > 1 else ''}", total=1.0)
                by_threads[threads] = profile_family(
                    folder,
                    mode="full" if full else "quick",
                    options=SessionOptions(threads=threads),
                    progress=partial(_complete, bar, task),
                )
            measured = by_threads[settings.threads]
            comparing = bar.add_task("comparing slots with threads", total=1.0)
            executors = compare_executors(
                folder, measured, progress=lambda fraction: bar.update(comparing, completed=fraction)
            )
            by_threads[settings.threads] = measured.model_copy(update={"executors": executors})
        # Before it is kept: where that fails, what took minutes is at least seen.
        for one in by_threads.values():
            print_profile(folder.manifest, one)
            save_profile(folder, one)


def _complete(bar: Progress, task: TaskID, fraction: float) -> None:
    bar.update(task, completed=fraction)
