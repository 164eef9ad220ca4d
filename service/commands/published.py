"""What a command says of a revision that it has published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from variants.manifest import FamilyManifest


def say_what_was_built(manifest: FamilyManifest, path: Path) -> None:
    """Say on the error output where a new revision is and what is served of it."""
    served = [variant.name for variant in manifest.variants if variant.load_by_default]
    typer.echo(
        f"{manifest.name}: {len(manifest.variants)} variants in {path}, loaded by default: {', '.join(served)}",
        err=True,
    )
