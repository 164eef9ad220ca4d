"""`pareto frontier`: which variants are worth having, as a table, as pictures, and as a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Config, Models, settings_from
from service.commands.outputs import check_folder, make_folder

if TYPE_CHECKING:
    from variants.profiling import FamilyProfile
    from variants.report.contents import Report
    from variants.repository import RevisionFolder
    from variants.session import SessionOptions

_PROFILE, _PROFILE_S = "latencies", 10.0
_FOOTPRINTS, _FOOTPRINT_S = "memory and processor seconds", 2.5
"""Seconds that these take about, the second for each variant."""
PICTURES = (".png", ".svg")


def frontier(
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help="Default: every family.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where report and pictures go.")] = Path(),
    watts_per_core: Annotated[
        float, typer.Option(min=0.1, max=1000.0, help="What a busy core draws, for the estimate of energy.")
    ] = 4.0,
    models: Models = None,
    config: Config = None,
) -> None:
    """Print and draw the Pareto frontier of quality, latency and size; write a report of all that is known.

    Qualities come with their standard error from the test part, latencies and memory from this machine's profile. The
    report is one HTML file that needs no network.
    """
    settings = settings_from(config, models=models)
    check_folder(out)
    from service.commands.tables import print_frontier
    from variants.report.contents import gather
    from variants.repository import Repository
    from variants.session import SessionOptions

    repository = Repository(settings.models)
    names = (family,) if family else repository.families()
    if not names:
        raise CommandError(f"{settings.models}: holds no family; `pareto build` builds one")
    options = SessionOptions(threads=settings.threads)
    for name in names:
        with faults_of_the_repository():
            folder = repository.open(name)
            report = gather(folder, _profile(folder, options), watts_per_core)
        print_frontier(report)
        _write(report, out)


def _profile(folder: RevisionFolder, options: SessionOptions) -> FamilyProfile:
    """This machine's profile of the sound variants; what it lacks of latencies and footprints is measured now."""
    from variants.profiling import load_profile, profile_family
    from variants.runtimes.defaults import unusable

    refused = {**unusable(folder.manifest), **folder.verify()}
    for name, fault in refused.items():
        typer.echo(f"{folder.manifest.name}: {name} is left out: {fault}", err=True)
    names = [variant.name for variant in folder.manifest.variants if variant.name not in refused]
    if not names:
        raise CommandError(f"{folder.path}: no variant is sound; `pareto build --force` builds the family anew")
    profile = load_profile(folder, options.threads)
    if profile is None or not set(names) <= set(profile.variants):
        typer.echo(f"{folder.manifest.name}: no profile of this machine yet, taking a quick one", err=True)
        with _shown(folder, _PROFILE, _PROFILE_S) as advance:
            profile = _kept(folder, profile_family(folder, names, progress=advance, options=options))
    profile = _with_footprints(folder, profile, names, options)
    return profile.model_copy(update={"variants": {name: profile.variants[name] for name in names}})


def _with_footprints(
    folder: RevisionFolder, profile: FamilyProfile, names: list[str], options: SessionOptions
) -> FamilyProfile:
    """The profile with what each variant takes to serve; a variant that cannot be measured goes without."""
    from variants.footprint import FootprintError, measure_footprint

    missing = [name for name in names if name not in profile.footprints]
    if not missing:
        return profile
    typer.echo(f"{folder.manifest.name}: measuring memory and processor seconds, a process for each variant", err=True)
    found = dict(profile.footprints)
    faults = []
    with _shown(folder, _FOOTPRINTS, _FOOTPRINT_S * len(missing)) as advance:
        for done, name in enumerate(missing, start=1):
            try:
                found[name] = measure_footprint(folder, name, options)
            except FootprintError as error:
                faults.append(error)
            advance(done / len(missing))
    for fault in faults:
        typer.echo(f"{folder.manifest.name}: {fault}", err=True)
    return _kept(folder, profile.model_copy(update={"footprints": found}))


@contextmanager
def _shown(folder: RevisionFolder, stage: str, expected_s: float) -> Iterator[Callable[[float], None]]:
    """Show on the error output how far a measurement is, given the seconds that it takes about; yields what is told."""
    from variants.progress import BuildProgress, open_display

    with open_display(f"measuring {folder.manifest.name}") as display:
        progress = BuildProgress({stage: expected_s}, display)
        progress.begin(stage)
        yield progress.advance


def _kept(folder: RevisionFolder, profile: FamilyProfile) -> FamilyProfile:
    """Keep what was measured for the next call, and return it with what was known; that it cannot be kept is said."""
    from variants.profiling import load_profile, save_profile
    from variants.repository import RepositoryError

    try:
        save_profile(folder, profile)
    except RepositoryError as error:
        typer.echo(f"{folder.manifest.name}: what was measured is not kept: {error}", err=True)
        return profile
    return load_profile(folder, profile.threads) or profile


def _write(report: Report, folder: Path) -> None:
    """Write the page, and the pictures where they can be drawn."""
    try:
        from variants.report.page import render

        make_folder(folder)
        planes, cascades = _pictures(report, folder)
        page = folder / f"{report.manifest.name}-frontier.html"
        page.write_text(render(report, planes, cascades), encoding="utf-8")
        typer.echo(f"report: {page}", err=True)
    except ModuleNotFoundError as error:
        typer.echo(f"no report: {error.name} is not installed (`make build` installs it)", err=True)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error


def _pictures(report: Report, folder: Path) -> tuple[dict[str, str], str]:
    """Write the pictures; return those of the page: one for each plane, and that of the cascades."""
    try:
        from variants.plots import draw_frontier
        from variants.report.pictures import cascade_picture, draw_cascades, frontier_pictures
    except ModuleNotFoundError as error:
        typer.echo(f"no pictures: {error.name} is not installed (`make build` installs it)", err=True)
        return {}, ""
    name = report.manifest.name
    for suffix in PICTURES:
        path = folder / f"{name}-frontier{suffix}"
        draw_frontier(report.points, path, metric=report.metric)
        typer.echo(f"drawn: {path}", err=True)
        if report.curve:
            path = folder / f"{name}-cascades{suffix}"
            draw_cascades(report.curve, path, report.metric)
            typer.echo(f"drawn: {path}", err=True)
    cascades = cascade_picture(report.curve, report.metric) if report.curve else ""
    return frontier_pictures(report.points, report.metric), cascades
