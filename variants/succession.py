"""A revision that comes of another one: it has all files of that, and what is added or decided anew."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants.draft import revision_name
from variants.manifest import EXPORTS_FOLDER, FamilyManifest
from variants.revision import RepositoryError, RevisionFolder
from variants.runtimes.defaults import unusable
from variants.scores import read_scores
from variants.spec import BuildError


def successor(manifest: FamilyManifest) -> FamilyManifest:
    """Return the manifest under the name of a revision that begins now; `build` says what it comes of."""
    created = datetime.datetime.now(datetime.UTC)
    build = {**manifest.build, "extended": manifest.revision}
    return manifest.model_copy(update={"revision": revision_name(created), "created": created, "build": build})


def copy_files(folder: RevisionFolder, staging: Path) -> None:
    """Have all files of a revision in another folder. Raises `RepositoryError` for one that is broken."""
    for path, fault in folder.broken_files().items():
        raise RepositoryError(f"{folder.file(path)}: {fault}")
    for entry in folder.manifest.files:
        target = staging / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        # Not linked: `onnx` takes data with two names for an attack and does not read it.
        shutil.copyfile(folder.file(entry.path), target)
    if (exports := folder.path / EXPORTS_FOLDER).is_dir():
        shutil.copytree(exports, staging / EXPORTS_FOLDER)


def known_scores(folder: RevisionFolder) -> Mapping[str, NDArray[np.float64]]:
    """Return by variant what each row of the test part scored. Raises `BuildError` where that is not stored."""
    known = read_scores(folder, [variant.name for variant in folder.manifest.variants])
    if known is None or known.rows != "test part":
        raise stale(folder, "it does not have the scores of its variants")
    return known.of


def check_profilable(manifest: FamilyManifest) -> None:
    """Raise `BuildError` where a variant's runtime is missing: variants that compete are timed together."""
    for name, lack in unusable(manifest).items():
        raise BuildError(f"{manifest.name}: {name} cannot be measured beside the others: {lack}")


def stale(folder: RevisionFolder, why: str) -> BuildError:
    """Return the error that a revision cannot be gone on from."""
    manifest = folder.manifest
    return BuildError(f"{manifest.name}: revision {manifest.revision}: {why}; build it anew (--force)")
