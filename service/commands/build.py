"""`pareto build`: families from their specs into the model repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Models, settings_from

if TYPE_CHECKING:
    from variants.manifest import FamilyManifest

DEFAULT_FAMILY = "sentiment"


def build(
    families: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|FILE.py]...", help=f"Families to build. Default: {DEFAULT_FAMILY}.", show_default=False
        ),
    ] = None,
    models: Models = None,
    force: Annotated[bool, typer.Option("--force", help="Build a new revision of what exists already.")] = False,
    counterparts: Annotated[
        bool,
        typer.Option("--counterparts", help="Also train what exits are compared with, networks of their own: minutes."),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Build families: train, compress, measure, profile, publish.

    NAME is a family that comes with the gateway (`sentiment`, `sentiment-deep`, `digits`, `fashion`, `vision`);
    FILE.py is a family spec of your own.
    """
    repository = settings_from(models=models).models
    for family in families or [DEFAULT_FAMILY]:
        build_one(family, repository, force=force, plain=plain, counterparts=counterparts)


def build_one(name: str, models: Path, *, force: bool = False, plain: bool = False, counterparts: bool = False) -> None:
    """Build one family and say what came out of it, on the error output. Raises `CommandError`."""
    from variants.repository import Repository

    repository = Repository(models)
    # The names of families that come with the gateway are known without loading what trains them.
    if not force and name in repository.families():
        _say_that_it_is_built(name, models)
        return
    with faults_of_the_repository(), faults_of_the_build(name):
        from variants.build import build_family
        from variants.families import load_family
        from variants.progress import LineDisplay, open_display

        spec = load_family(name)
        if not force and spec.name in repository.families():
            _say_that_it_is_built(spec.name, models)
            return
        title = f"building {spec.name}"
        display = LineDisplay(title) if plain else open_display(title)
        folder = build_family(spec, repository, display=display, counterparts=counterparts)
    say_what_was_built(folder.manifest, folder.path)


def say_what_was_built(manifest: FamilyManifest, path: Path) -> None:
    """Say on the error output where a new revision is and what is served of it."""
    served = [variant.name for variant in manifest.variants if variant.load_by_default]
    typer.echo(
        f"{manifest.name}: {len(manifest.variants)} variants in {path}, loaded by default: {', '.join(served)}",
        err=True,
    )


def _say_that_it_is_built(name: str, models: Path) -> None:
    typer.echo(f"{name}: is built already in {models} (--force builds it anew)", err=True)


@contextmanager
def faults_of_the_build(name: str, remedy: str = "`make build` in a checkout installs it") -> Iterator[None]:
    """Turn what can be wrong with a family, its sources and its tools into a `CommandError`.

    `remedy` says what to do where a package is missing.
    """
    try:
        from variants.spec import BuildError

        try:
            yield
        except BuildError as error:
            raise CommandError(str(error)) from error
    except ModuleNotFoundError as error:
        raise CommandError(f"building {name} needs {error.name}, which is not installed: {remedy}") from error
