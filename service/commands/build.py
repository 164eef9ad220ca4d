"""`pareto build`: families from their specs into the model repository."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Never

import typer

from service.commands.anew import begin_anew
from service.commands.failure import CommandError, faults_of_the_repository
from service.commands.options import Models, settings_from

if TYPE_CHECKING:
    from variants.manifest import FamilyManifest
    from variants.repository import Repository
    from variants.spec import FamilySpec

DEFAULT_FAMILY = "sentiment"
_USAGE = 2
_OF_IMPORTS = "`pareto import MODEL.onnx --samples FILE.npz --name NAME --runtimes ...`"

Runtimes = Annotated[
    str | None,
    typer.Option(
        "--runtimes",
        metavar="all|NAME,...",
        help="Also make the variants for other runtimes: openvino, openvino-bf16, torch, litert, onnxruntime-cuda.",
        show_default=False,
    ),
]


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
    from variants.families import BUILT_IN
    from variants.repository import Repository
    from variants.runtimes.table import RUNTIMES

    if name in BUILT_IN or (name.endswith(".py") and Path(name).is_file()):
        return
    if name.endswith(".py"):
        known = ", ".join(BUILT_IN)
        raise CommandError(f"{Path(name).resolve()}: no such file; give the path of a family spec or one of {known}")
    if name in RUNTIMES:
        raise CommandError(f"{name!r} is a runtime: --runtimes takes several with commas between them", _USAGE)
    with faults_of_the_repository():
        is_built = name in Repository(models).families()
    if is_built and is_ported:
        raise CommandError(f"{name!r} was not built of a name: what was imported is ported by {_OF_IMPORTS}")
    if not is_built:
        known = ", ".join(BUILT_IN)
        raise CommandError(f"{name!r} is not a family: give the path of a .py file or one of {known}")


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


def say_what_was_built(manifest: FamilyManifest, path: Path) -> None:
    """Say on the error output where a new revision is and what is served of it."""
    served = [variant.name for variant in manifest.variants if variant.load_by_default]
    typer.echo(
        f"{manifest.name}: {len(manifest.variants)} variants in {path}, loaded by default: {', '.join(served)}",
        err=True,
    )


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
