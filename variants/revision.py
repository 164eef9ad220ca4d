"""One revision of a family on disk: its manifest, its files, and whether they are what the manifest says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.atomic import sha256_of
from variants.manifest import SAMPLES_FILE, FamilyManifest, FileEntry
from variants.shared_parts import TableFile, shared_file


class RepositoryError(Exception):
    """The repository does not hold what was asked for, or not in order. The message is one line naming the file."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a variant answered on known rows, with calibrated confidence in [0, 1].

    On the validation part: `label`, `predicted` int64 [n] and `confidence` float32 [n]. On the rows of `samples.npz`:
    `sample_predicted` int64 [m] and `sample_confidence` float32 [m].
    """

    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    sample_predicted: NDArray[np.int64]
    sample_confidence: NDArray[np.float32]


class RevisionFolder:
    """One revision on disk, or one that is being built in a staging folder."""

    def __init__(self, path: Path, manifest: FamilyManifest) -> None:
        self.path = path
        self.manifest = manifest

    def __repr__(self) -> str:
        return f"RevisionFolder({self.manifest.name}/{self.manifest.revision} at {self.path})"

    def file(self, relative: str) -> Path:
        """Return the path of one file of the revision. Raises `RepositoryError` where it leads out of the folder."""
        path = self.path / relative
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise RepositoryError(f"{path}: leads out of the revision's folder")
        return path

    def tables(self, graph: str) -> tuple[TableFile, ...]:
        """Return the lookup tables of a graph file, which sessions share. Raises `RepositoryError` as `file` does."""
        return tuple(
            TableFile(self.file(shared_file(table.sha256)), table) for table in self.manifest.parts_of(graph).tables
        )

    def size_bytes(self, graph: str) -> int:
        """Return the bytes of a graph file and of all that it keeps in shared files.

        Of a published revision by its manifest, whatever is on the disk. Raises `OSError` where it is being built.
        """
        return self.file_bytes(graph) + sum(map(self.file_bytes, self.manifest.parts_of(graph).files))

    def file_bytes(self, path: str) -> int:
        """Return the bytes of one file; see `size_bytes`."""
        said = self._sizes.get(path)
        return self.file(path).stat().st_size if said is None else said

    @cached_property
    def _sizes(self) -> Mapping[str, int]:
        return {entry.path: entry.size_bytes for entry in self.manifest.files}

    def broken_files(self, only: Collection[str] | None = None) -> Mapping[str, str]:
        """Read every file, or `only` some; return what is wrong with those that differ from the manifest, by path."""
        entries = self.manifest.files if only is None else [e for e in self.manifest.files if e.path in only]
        found = {entry.path: self._fault(entry) for entry in entries}
        return {path: fault for path, fault in found.items() if fault}

    def verify(self) -> Mapping[str, str]:
        """Return why variants must not be loaded, by name; empty where all is well.

        A variant falls with any file it needs: its own, a stage's that it shares, or the family's tokenizer.
        """
        broken = self.broken_files()
        refused: dict[str, str] = {}
        for variant in self.manifest.variants:
            faults = [f"{path}: {broken[path]}" for path in self.manifest.files_of(variant) if path in broken]
            if faults:
                refused[variant.name] = "; ".join(faults)
        return refused

    def samples(self) -> dict[str, NDArray[Any]]:
        """Return labelled rows of the test part: one array [n, ...] per input and `label` int64 [n].

        Text comes as object arrays of UTF-8 bytes, as requests bring it. Raises `RepositoryError`.
        """
        path = self.file(SAMPLES_FILE)
        arrays = _load_arrays(path)
        names = [tensor.name for tensor in self.manifest.inputs]
        for name in (*names, "label"):
            if name not in arrays:
                raise RepositoryError(f"{path}: has no array {name!r}")
            if len(arrays[name]) != len(arrays["label"]):
                raise RepositoryError(f"{path}: {name!r} and 'label' differ in length")
        samples = {name: _as_requests_bring_it(arrays[name]) for name in names}
        samples["label"] = arrays["label"].astype(np.int64)
        return samples

    def calibration(self, variant: str) -> Calibration:
        """Return what the variant answered on known rows. Raises `RepositoryError`, `KeyError` for no such variant."""
        path = self.file(self.manifest.variant(variant).calibration_file)
        arrays = _load_arrays(path)
        for name in ("label", "predicted", "confidence", "sample_predicted", "sample_confidence"):
            if name not in arrays or arrays[name].ndim != 1:
                raise RepositoryError(f"{path}: has no one-dimensional array {name!r}")
        for group in (("label", "predicted", "confidence"), ("sample_predicted", "sample_confidence")):
            if len({len(arrays[name]) for name in group}) != 1:
                raise RepositoryError(f"{path}: {', '.join(group)} differ in length")
        return Calibration(
            label=arrays["label"].astype(np.int64),
            predicted=arrays["predicted"].astype(np.int64),
            confidence=arrays["confidence"].astype(np.float32),
            sample_predicted=arrays["sample_predicted"].astype(np.int64),
            sample_confidence=arrays["sample_confidence"].astype(np.float32),
        )

    def _fault(self, entry: FileEntry) -> str:
        try:
            path = self.file(entry.path)
            size_bytes = path.stat().st_size
            if size_bytes != entry.size_bytes:
                return f"has {size_bytes} bytes, expected {entry.size_bytes}"
            return "" if sha256_of(path) == entry.sha256 else "has the wrong SHA-256"
        except FileNotFoundError:
            return "is missing"
        except RepositoryError:
            return "leads out of the revision's folder"
        except OSError as error:
            return f"cannot be read: {error.strerror}"


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a damaged archive raises anything from zipfile, zlib, numpy or the OS
        raise RepositoryError(f"{path}: cannot be read as arrays: {' '.join(str(error).split())[:200]}") from error


def _as_requests_bring_it(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "US":
        return values
    texts = np.empty(len(values), dtype=object)
    texts[:] = [text.encode() if isinstance(text, str) else text for text in values.tolist()]
    return texts
