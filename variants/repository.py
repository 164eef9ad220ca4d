"""The model repository on disk: families, their revisions, and which revision is active.

A revision is written under a temporary name beside its place, hashed file by file, given its `family.json` last, and
renamed into place; `ACTIVE` is replaced after that. So a reader sees a whole revision or none, whenever the writer
dies. Names that start with a dot are temporary and ignored by every reader.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from variants.atomic import sha256_of, sync_file, sync_folder, write_atomically, write_durably
from variants.manifest import (
    ACTIVE_FILE,
    EXPORTS_FOLDER,
    MANIFEST_FILE,
    NAME_PATTERN,
    PROFILES_FOLDER,
    FamilyManifest,
    FileEntry,
    first_fault,
)
from variants.revision import Calibration, RepositoryError, RevisionFolder

__all__ = ["Calibration", "Repository", "RepositoryError", "RevisionFolder"]

_BESIDE = (PROFILES_FOLDER, EXPORTS_FOLDER)
"""Folders of a revision that are no part of it."""
_STAGING_PREFIX = ".staging-"
_ABANDONED_AFTER_S = 24 * 3600.0


class Repository:
    """A folder of families. It need not exist before the first revision is published."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"Repository({self.root})"

    def families(self) -> tuple[str, ...]:
        """Return the names of the families that have an active revision, sorted."""
        if not self.root.is_dir():
            return ()
        return tuple(sorted(path.name for path in _named(self.root) if (path / ACTIVE_FILE).is_file()))

    def revisions(self, family: str) -> tuple[str, ...]:
        """Return the names of a family's whole revisions, sorted."""
        folder = self._family_folder(family)
        if not folder.is_dir():
            return ()
        return tuple(sorted(path.name for path in _named(folder) if (path / MANIFEST_FILE).is_file()))

    def active(self, family: str) -> str:
        """Return the name of the active revision. Raises `RepositoryError` where there is none."""
        path = self._family_folder(family) / ACTIVE_FILE
        try:
            revision = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            known = ", ".join(self.families()) or "none"
            raise RepositoryError(
                f"{self.root}: no family {family!r} here (families: {known}); "
                "`pareto build` or `pareto import` adds one"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise RepositoryError(f"{path}: cannot be read: {error}") from error
        if not _is_name(revision):
            raise RepositoryError(f"{path}: does not name a revision: {revision[:80]!r}")
        return revision

    def open(self, family: str, revision: str | None = None) -> RevisionFolder:
        """Read a revision, by default the active one. Raises `RepositoryError` naming the file and the field."""
        if revision is None:
            revision = self.active(family)
        elif not _is_name(revision):
            raise RepositoryError(f"{revision[:80]!r} is not a name of a revision")
        path = self._family_folder(family) / revision / MANIFEST_FILE
        try:
            manifest = FamilyManifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            known = ", ".join(self.revisions(family)) or "none"
            raise RepositoryError(f"{path}: no revision {revision!r} here (revisions: {known})") from None
        except OSError as error:
            raise RepositoryError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise RepositoryError(f"{path}: {first_fault(error)}") from error
        if (manifest.name, manifest.revision) != (family, revision):
            raise RepositoryError(f"{path}: is the manifest of {manifest.name}/{manifest.revision}")
        return RevisionFolder(path.parent, manifest)

    def activate(self, family: str, revision: str) -> None:
        """Make a revision the active one, atomically. Raises `RepositoryError` where that cannot be done."""
        path = self.open(family, revision).path.parent / ACTIVE_FILE
        with _writing(path):
            write_atomically(path, f"{revision}\n".encode())

    @contextmanager
    def new_staging(self, family: str) -> Iterator[Path]:
        """Yield an empty folder to build a revision in; what is not published when the block ends is removed.

        Raises `RepositoryError` where it cannot be made.
        """
        folder = self._family_folder(family)
        staging = folder / f"{_STAGING_PREFIX}{secrets.token_hex(6)}"
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(folder)
            staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def publish(self, manifest: FamilyManifest, staging: Path) -> RevisionFolder:
        """Make the files in `staging` (from `new_staging`) a revision of the family and activate it.

        `files` of the given manifest is replaced by what is found. Raises `RepositoryError` where the revision exists
        already, a file that the manifest needs is missing, a file is not a regular one, or the disk does not take it.
        """
        path = self._family_folder(manifest.name) / manifest.revision
        if path.exists():
            raise RepositoryError(f"{path}: this revision exists already")
        with _writing(path):
            try:
                whole = FamilyManifest.model_validate({**manifest.model_dump(), "files": _entries(staging)})
            except ValidationError as error:
                raise RepositoryError(f"{staging}: {first_fault(error)}") from error
            write_durably(staging / MANIFEST_FILE, whole.model_dump_json(indent=1).encode())
            sync_folder(staging)
            staging.rename(path)
            sync_folder(path.parent)
        self.activate(manifest.name, manifest.revision)
        return RevisionFolder(path, whole)

    def _family_folder(self, family: str) -> Path:
        if not _is_name(family):
            raise RepositoryError(f"{family[:80]!r} is not a name of a family")
        return self.root / family


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a `RepositoryError` that names the path."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise RepositoryError(
            f"{path}: cannot be written: {why}; check the space left and the permissions, or choose another repository"
        ) from error


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME_PATTERN, name) is not None


def _named(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if _is_name(path.name) and path.is_dir())


def _entries(staging: Path) -> list[FileEntry]:
    entries = []
    for path in sorted(staging.rglob("*")):
        relative = path.relative_to(staging)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise RepositoryError(f"{path}: is not a regular file")
        if path.is_file() and relative.parts[0] not in _BESIDE and relative.as_posix() != MANIFEST_FILE:
            sync_file(path)
            entry = {"path": relative.as_posix(), "sha256": sha256_of(path), "size_bytes": path.stat().st_size}
            entries.append(FileEntry.model_validate(entry))
    return entries


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"{_STAGING_PREFIX}*"):
        try:
            abandoned = time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S
        except FileNotFoundError:
            continue
        if abandoned:
            shutil.rmtree(path, ignore_errors=True)
