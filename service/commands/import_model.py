"""`pareto import`: a foreign ONNX model into the model repository, with compressed variants of it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from service.commands.build import BatchTolerance, reselect_one
from service.commands.failure import CommandError, faults_of_the_build, faults_of_the_repository
from service.commands.options import Models, settings_from
from service.commands.port import Runtimes, port_one, runtimes_named
from service.commands.published import say_what_was_built

_USAGE = 2
_REMEDY = "`make build` in a checkout, or there `pip install '.[import]'`, installs it"


def import_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL.onnx", help="One input with a dynamic batch, logits or probabilities.")
    ],
    samples: Annotated[
        Path, typer.Option("--samples", metavar="FILE.npz", help="Rows `x`, and `label`, `labels` where known.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the family is called.")],
    recipes: Annotated[
        str | None,
        typer.Option(
            "--recipes",
            metavar="NAME,...",
            help="Variants beside fp32: int8, int8-static, fp16 (the default), bf16, int8-weights, int4-weights, "
            "clustered, int8-dynamic, int8-static-entropy, int8-static-percentile.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", metavar="NAME", help="Which output is the answer.", show_default=False)
    ] = None,
    mean: Annotated[float, typer.Option(metavar="NUMBER", help="Requests' x becomes (x - mean) / scale.")] = 0.0,
    scale: Annotated[float, typer.Option(metavar="NUMBER", help="See --mean.")] = 1.0,
    slo_ms: Annotated[
        float | None,
        typer.Option(
            "--slo-ms", metavar="MS", help="Default SLO of requests. Default: 20 answers.", show_default=False
        ),
    ] = None,
    description: Annotated[str, typer.Option(metavar="TEXT", help="What the model does.")] = "",
    models: Models = None,
    runtimes: Runtimes = None,
    batch_tolerance: BatchTolerance = None,
    force: Annotated[bool, typer.Option("--force", help="Import a new revision of what exists already.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Import an ONNX classifier: make int8 and fp16 variants, measure, profile, publish. Needs no torch.

    With labels in FILE.npz the variants' quality is accuracy, without them agreement with the model itself. With
    --runtimes, a family that exists already is not imported anew: its variants are ported, measured on the same rows.
    With --batch-tolerance, what it loads by default is decided anew.
    """
    repository_path = settings_from(models=models).models
    from variants.manifest import NAME_PATTERN
    from variants.repository import Repository

    if not re.fullmatch(NAME_PATTERN, name):
        raise CommandError(
            f"--name: {name!r} is no name: letters, digits, dots, dashes, underscores, at most 64", _USAGE
        )
    if not math.isfinite(mean):
        raise CommandError(f"--mean: expected a finite number, got {mean:g}", _USAGE)
    for flag, value in (("--scale", scale), ("--slo-ms", slo_ms)):
        if value is not None and not 0.0 < value < math.inf:
            raise CommandError(f"{flag}: expected a finite number over 0, got {value:g}", _USAGE)
    named = None if runtimes is None else runtimes_named(runtimes)
    repository = Repository(repository_path)
    exists = not force and name in repository.families()
    if exists and named is None and batch_tolerance is not None:
        reselect_one(name, repository, batch_tolerance, plain=plain)
        return
    if exists and named is None:
        raise CommandError(f"{name}: exists already in {repository_path}; --force imports a new revision")
    with faults_of_the_repository(), faults_of_the_build(name, _REMEDY):
        from variants.build import build_family
        from variants.importing.family import DEFAULT_RECIPES, RECIPES, ImportOptions, imported_family
        from variants.progress import LineDisplay, open_display

        chosen = [entry.strip() for entry in recipes.split(",")] if recipes is not None else DEFAULT_RECIPES
        if unknown := [entry for entry in chosen if entry not in RECIPES]:
            raise CommandError(f"--recipes: {unknown[0]!r} is unknown, known are {', '.join(RECIPES)}", _USAGE)
        options = ImportOptions(
            recipes=chosen,
            output=output,
            mean=mean,
            scale=scale,
            slo_s=slo_ms / 1e3 if slo_ms else None,
            description=description,
        )
        spec = imported_family(name, model, samples, options)
        if batch_tolerance is not None:
            spec = replace(spec, batch_tolerance=batch_tolerance)
        if not exists:
            title = f"importing {name}"
            display = LineDisplay(title) if plain else open_display(title)
            folder = build_family(spec, repository, display=display)
    if named is not None:
        port_one(spec, repository_path, named, batch_tolerance=batch_tolerance, plain=plain)
        return
    say_what_was_built(folder.manifest, folder.path)
