"""`pareto frontier`: which variants are worth having, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Config, Models, settings_from

if TYPE_CHECKING:
    from variants.frontier import ParetoPoint
    from variants.manifest import FamilyManifest
    from variants.profiling import FamilyProfile
    from variants.repository import RevisionFolder

PICTURES = (".png", ".svg")


def frontier(
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help="Default: every family.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")] = Path(),
    models: Models = None,
    config: Config = None,
) -> None:
    """Print and draw the Pareto frontier of quality, latency and size.

    Qualities come with their standard error from the test part, latencies from this machine's profile.
    """
    settings = settings_from(config, models=models)
    from service.commands.tables import print_frontier
    from variants import frontier as pareto
    from variants.repository import Repository

    repository = Repository(settings.models)
    names = (family,) if family else repository.families()
    if not names:
        raise CommandError(f"{settings.models}: holds no family; `pareto build` builds one")
    for name in names:
        with faults_of_the_repository():
            folder = repository.open(name)
            points = points_of(folder.manifest, _profile(folder, settings.threads_per_slot))
        print_frontier(folder.manifest, points, pareto.frontier(points))
        _draw(points, out / f"{name}-frontier")


def points_of(manifest: FamilyManifest, profile: FamilyProfile) -> list[ParetoPoint]:
    """One point for each variant; latency is the median of one row of the middle size class."""
    from variants.frontier import ParetoPoint

    middle = len(manifest.sizes) // 2
    any_invariant = any(variant.invariance.invariant for variant in manifest.variants)
    return [
        ParetoPoint(
            name=variant.name,
            quality=variant.quality.value,
            latency_s=profile.variants[variant.name].median_s[middle][0],
            size_bytes=variant.size_bytes,
            standard_error=variant.quality.standard_error,
            competes=variant.invariance.invariant or not any_invariant,
        )
        for variant in manifest.variants
        if variant.name in profile.variants
    ]


def _profile(folder: RevisionFolder, threads: int) -> FamilyProfile:
    """This machine's profile; a quick one is taken where there is none or where it lacks variants."""
    from variants.profiling import load_profile, profile_family, save_profile
    from variants.session import SessionOptions

    refused = folder.verify()
    for name, fault in refused.items():
        typer.echo(f"{folder.manifest.name}: {name} is left out: {fault}", err=True)
    names = [variant.name for variant in folder.manifest.variants if variant.name not in refused]
    profile = load_profile(folder, threads)
    if profile is None or not set(names) <= set(profile.variants):
        typer.echo(f"{folder.manifest.name}: no profile of this machine yet, taking a quick one", err=True)
        profile = profile_family(folder, names, options=SessionOptions(threads=threads))
        save_profile(folder, profile)
    return profile


def _draw(points: list[ParetoPoint], stem: Path) -> None:
    try:
        from variants.plots import draw_frontier

        stem.parent.mkdir(parents=True, exist_ok=True)
        for suffix in PICTURES:
            path = stem.with_name(stem.name + suffix)
            draw_frontier(points, path)
            typer.echo(f"drawn: {path}", err=True)
    except ModuleNotFoundError as error:
        typer.echo(f"no pictures: {error.name} is not installed (`make build` installs it)", err=True)
    except OSError as error:
        raise CommandError(f"{error.filename}: cannot be written: {error.strerror}; see --out") from error
