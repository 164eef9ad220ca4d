"""`pareto export`: a variant as a file for devices, measured here with the runtime that devices have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError, faults_of_the_build, faults_of_the_repository
from service.commands.options import Models, settings_from

if TYPE_CHECKING:
    from variants.manifest import VariantManifest
    from variants.ondevice.records import Export
    from variants.revision import RevisionFolder

_USAGE = 2


def export(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="A family in the repository.", show_default=False)],
    to: Annotated[
        str,
        typer.Option("--to", metavar="litert|executorch", help="Whose file: .tflite or .pte.", show_default=False),
    ],
    variant: Annotated[
        str | None,
        typer.Option(
            "--variant", metavar="NAME", help="A float variant. Default: the most accurate.", show_default=False
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            "--tokens",
            metavar="N",
            help="Text: how many tokens a row has in the file. Default: the middle size class.",
            show_default=False,
        ),
    ] = None,
    models: Models = None,
) -> None:
    """Write a variant as a file for devices, check that it answers the same, and measure it.

    File and figures stay beside the family's revision; `pareto frontier` reports them beside the server's variants.
    """
    settings = settings_from(models=models)
    from variants.repository import Repository

    with faults_of_the_repository(), faults_of_the_build(family):
        from variants.ondevice.records import TARGETS
        from variants.porting.tools import ToolError, check_tools

        # Before torch is loaded, and before anything runs for long.
        if to not in TARGETS:
            raise CommandError(f"--to: no target {to!r}, known are {', '.join(TARGETS)}", _USAGE)
        folder = Repository(settings.models).open(family)
        _check_named(folder, variant)
        try:
            check_tools()
        except ToolError as error:
            raise CommandError(f"{family}: cannot be exported: {error}") from error
        from variants.ondevice.export import export_variant

        chosen = _variant(folder, variant)
        typer.echo(f"{family}: exporting {chosen.name} to {to}: some minutes", err=True)
        try:
            done = export_variant(folder, chosen, to, tokens=tokens)
        except ToolError as error:
            raise CommandError(f"{family}: {chosen.name} cannot be exported: {error}") from error
    _say(done, folder)


def _check_named(folder: RevisionFolder, name: str | None) -> None:
    known = [one.name for one in folder.manifest.variants]
    if name is not None and name not in known:
        raise CommandError(f"{folder.manifest.name}: no variant {name!r}, known are {', '.join(known)}", _USAGE)


def _variant(folder: RevisionFolder, name: str | None) -> VariantManifest:
    from variants.ondevice.export import exportable

    if name is not None:
        return folder.manifest.variant(name)
    floats = exportable(folder.manifest)
    if not floats:
        raise CommandError(f"{folder.manifest.name}: has no float variant to export")
    return floats[0]


def _say(done: Export, folder: RevisionFolder) -> None:
    verdict = "no difference beyond noise" if done.tied else f"different, p = {done.p_value:.3f}"
    low, high = (100 * bound for bound in done.interval)
    length = f" of {done.tokens} tokens" if done.tokens > 1 else ""
    typer.echo(f"{folder.path / done.file}: {done.size_bytes / 1e6:.3g} MB")
    typer.echo(
        f"one row{length}: {done.median_s * 1e3:.3g} ms (p95 {done.tail_s * 1e3:.3g}), "
        f"onnxruntime {done.server_median_s * 1e3:.3g} ms; memory {done.memory_bytes / 1e6:.3g} MB"
    )
    typer.echo(
        f"accuracy {100 * done.accuracy:.1f} %, as served {100 * done.server_accuracy:.1f} %: "
        f"{100 * done.difference:+.1f} points [{low:+.1f}, {high:+.1f}], {verdict} ({done.rows} rows, "
        f"{done.cut_rows} cut); logits off by {done.parity.max_relative_error:.1e}"
    )
