"""`pareto build`: families from their specs into the model repository."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Never

import typer

from service.commands.anew import begin_anew
from service.commands.failure import CommandError, faults_of_the_build, faults_of_the_repository
from service.commands.options import Models, settings_from
from service.commands.port import PORTS_OF_IMPORTS, Runtimes, port_one, runtimes_named
from service.commands.published import say_what_was_built

if TYPE_CHECKING:
    from variants.repository import Repository
    from variants.spec import FamilySpec

DEFAULT_FAMILY = "sentiment"
_USAGE = 2


def _a_number(value: float | None) -> float | None:
    """`nan` lies in every range, by how ranges are checked."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


BatchTolerance = Annotated[
    float | None,
    typer.Option(
        "--batch-tolerance",
        min=1e-6,
        max=0.1,
        metavar="P",
        callback=_a_number,
        help="How far a variant's probabilities may move with the other rows of a batch, for it to compete. Default: "
        "what the family has, 0.001 at first.",
        show_default=False,
    ),
]


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
    runtimes: Runtimes = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="VARIANT,...", help="With --runtimes: which variants. Default: all.", show_default=False
        ),
    ] = None,
    batch_tolerance: BatchTolerance = None,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Build families: train, compress, measure, profile, publish.

    With --runtimes, a family that is built already gets the same variants on other runtimes; nothing is trained anew.
    With --batch-tolerance, what a built family loads by default is decided anew.

    NAME is a family that comes with the gateway (`sentiment`, `sentiment-deep`, `digits`, `fashion`, `vision`);
    FILE.py is a family spec of your own.
    """
    repository = settings_from(models=models).models
    if only is not None and runtimes is None:
        raise CommandError("--only: names what --runtimes ports; give --runtimes, too", _USAGE)
    if only is not None and len(families or ()) > 1:
        raise CommandError("--only: names the variants of one family; build one at a time", _USAGE)
    for family in families or ():
        _check_that_it_can_be_built(family, repository, is_ported=runtimes is not None)
    named = None if runtimes is None else runtimes_named(runtimes)
    for family in families or [DEFAULT_FAMILY]:
        build_one(
            family,
            repository,
            force=force,
            plain=plain,
            counterparts=counterparts,
            batch_tolerance=batch_tolerance,
            goes_on=named is not None,
        )
        if named is not None:
            from variants.families import load_family

            with faults_of_the_build(family):
                spec = load_family(family)
            port_one(spec, repository, named, only, batch_tolerance=batch_tolerance, plain=plain)


def _check_that_it_can_be_built(name: str, models: Path, *, is_ported: bool) -> None:
    """Before anything is built of what the command names. Raises `CommandError`."""
    from variants.families import check_family
    from variants.repository import Repository
    from variants.runtimes.table import RUNTIMES
    from variants.spec import BuildError

    try:
        check_family(name)
    except BuildError as error:
        if name in RUNTIMES:
            said = f"{name!r} is a runtime: pareto build FAMILY --runtimes {name}, several with commas between them"
            raise CommandError(said, _USAGE) from error
        with faults_of_the_repository():
            is_built = name in Repository(models).families()
        if is_built and is_ported:
            raise CommandError(f"{name!r} was not built of a name: {PORTS_OF_IMPORTS}") from error
        if not is_built:
            raise CommandError(str(error)) from error


def build_one(
    name: str,
    models: Path,
    *,
    force: bool = False,
    plain: bool = False,
    counterparts: bool = False,
    batch_tolerance: float | None = None,
    goes_on: bool = False,
) -> None:
    """Build one family and say what came out of it, on the error output. Raises `CommandError`.

    One that is built already has its variants compete anew where a `batch_tolerance` is given. Where the command
    `goes_on` with that family, nothing is done and said of it here.
    """
    from variants.repository import Repository

    repository = Repository(models)
    # The names of families that come with the gateway are known without loading what trains them.
    if not force and name in repository.families():
        _leave_or_reselect(name, repository, batch_tolerance, plain=plain, goes_on=goes_on)
        return
    with faults_of_the_repository(), faults_of_the_build(name):
        from variants.build import build_family
        from variants.families import load_family
        from variants.progress import LineDisplay, open_display

        spec = load_family(name)
        if not force and spec.name in repository.families():
            _check_that_it_is_built_of(name, spec, repository)
            _leave_or_reselect(spec.name, repository, batch_tolerance, plain=plain, goes_on=goes_on)
            return
        if batch_tolerance is not None:
            spec = replace(spec, batch_tolerance=batch_tolerance)
        title = f"building {spec.name}"
        display = LineDisplay(title) if plain else open_display(title)
        folder = build_family(spec, repository, display=display, counterparts=counterparts)
    say_what_was_built(folder.manifest, folder.path)


def build_then_begin_anew(name: str, models: Path) -> Never:
    """Build one family, and run this command line again: whoever serves for weeks gives back what building took.

    That is hundreds of megabytes, of torch and others, which nothing but the end of a program gives back. Raises
    `CommandError`.
    """
    build_one(name, models)
    begin_anew()


def _leave_or_reselect(
    name: str, repository: Repository, batch_tolerance: float | None, *, plain: bool, goes_on: bool
) -> None:
    """What there is to do with a family that is built already."""
    if goes_on:
        return
    if batch_tolerance is None:
        typer.echo(f"{name}: is built already in {repository.root} (--force builds it anew)", err=True)
    else:
        reselect_one(name, repository, batch_tolerance, plain=plain)


def reselect_one(name: str, repository: Repository, batch_tolerance: float, *, plain: bool = False) -> None:
    """Have a built family's variants compete anew, and say what came out of it. Raises `CommandError`."""
    with faults_of_the_repository(), faults_of_the_build(name):
        from variants.progress import LineDisplay, open_display
        from variants.reselection import reselect_family

        title = f"selecting {name}"
        before = repository.active(name)
        display = LineDisplay(title) if plain else open_display(title)
        folder = reselect_family(repository, name, batch_tolerance, display=display)
    if folder.manifest.revision == before:
        typer.echo(f"{name}: has a batch tolerance of {batch_tolerance:g} already", err=True)
        return
    say_what_was_built(folder.manifest, folder.path)


def _check_that_it_is_built_of(file: str, spec: FamilySpec, repository: Repository) -> None:
    """Raise `CommandError` where what is built under that name is plainly another family than the file's."""
    from variants.repository import RepositoryError

    try:
        built = repository.open(spec.name).manifest
    except RepositoryError:
        # Whatever it was: it is built already, and --force builds it anew.
        return
    fields = ("inputs", "labels", "preparation")
    other = [field for field in fields if getattr(built, field) != getattr(spec, field)]
    if other:
        raise CommandError(
            f"{file}: {spec.name} is built already in {repository.root}, as another family of other "
            f"{' and '.join(other)} ({built.description!r}): name this one otherwise, or replace that one with --force"
        )
