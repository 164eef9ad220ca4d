"""Hundreds of families of which few are popular: copies of one real family on disk, and who is asked for when."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loadtests.traces import Seconds
from variants.manifest import ACTIVE_FILE, MANIFEST_FILE, PROFILES_FOLDER
from variants.repository import Repository
from variants.shared_parts import shared_file

Tables = Literal["shared", "own", "weights"]
"""What becomes of the lookup tables of a copied family.

`shared`: copies stand for families that were made from one model and kept its tables, which are in memory once. `own`:
for families that have nothing to do with each other, each with tables in memory for itself; these are blank, so answers
mean nothing. `weights`: the same, but right answers; the tables are weights, which onnxruntime maps from the one file
that all copies have. Of those, memory holds what was looked up, in pieces as large as the disk's cache has them.
"""
_END_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Visits:
    """Requests of one row: `arrival_s` float64 [n] ascends from 0, `family` int64 [n] is a rank, 0 the most popular."""

    arrival_s: Seconds
    family: NDArray[np.int64]


def zipf_visits(families: int, exponent: float, per_s: float, seconds: float, rng: np.random.Generator) -> Visits:
    """Poisson arrivals of so many a second; the family of rank r is asked for in proportion to 1 / r ** exponent."""
    count = int(rng.poisson(per_s * seconds))
    weights = np.arange(1, families + 1) ** -exponent
    arrival_s: Seconds = np.sort(rng.random(count)) * seconds
    return Visits(arrival_s, rng.choice(families, count, p=weights / weights.sum()))


def family_names(count: int) -> list[str]:
    """What the copies are called, the most popular first."""
    return [f"copy{rank:04d}" for rank in range(count)]


def write_copies(source: Repository, family: str, root: Path, names: list[str], *, tables: Tables = "weights") -> None:
    """Publish copies of a family's active revision under other names; large files are hard links where they can be.

    See `Tables` for what becomes of its lookup tables. Raises `RepositoryError` where the family cannot be read.
    """
    folder = source.open(family).path
    for number, name in enumerate(names):
        target = root / name / folder.name
        for path in folder.rglob("*"):
            copied = target / path.relative_to(folder)
            if path.is_dir():
                continue
            copied.parent.mkdir(parents=True, exist_ok=True)
            if path.name == MANIFEST_FILE or path.parent.name == PROFILES_FOLDER:
                document = json.loads(path.read_text(encoding="utf-8"))
                document["name" if path.name == MANIFEST_FILE else "family"] = name
                if path.name == MANIFEST_FILE and tables == "weights":
                    _let_nobody_share(document)
                elif path.name == MANIFEST_FILE and tables == "own":
                    _write_tables(document, target, number)
                copied.write_text(json.dumps(document), encoding="utf-8")
                continue
            try:
                os.link(path, copied)
            except OSError:
                shutil.copyfile(path, copied)
        (root / name / ACTIVE_FILE).write_text(f"{folder.name}\n", encoding="utf-8")


def _let_nobody_share(document: dict[str, Any]) -> None:
    for parts in document.get("graphs", {}).values():
        parts["weights"] = [*parts["weights"], *(table["sha256"] for table in parts["tables"])]
        parts["tables"] = []


def _write_tables(document: dict[str, Any], target: Path, number: int) -> None:
    """Give a copy tables that no other `number` has: zeros and a single one, which take nearly nothing on the disk."""
    files = {entry["path"]: entry for entry in document["files"]}
    for parts in document.get("graphs", {}).values():
        for table in parts["tables"]:
            size_bytes = files[shared_file(table["sha256"])]["size_bytes"]
            end = bytearray(min(size_bytes, _END_BYTES))
            end[number % len(end)] = 1
            digest = _zeros(size_bytes - len(end)).copy()
            digest.update(end)
            table["sha256"] = digest.hexdigest()
            path = shared_file(table["sha256"])
            if path not in files:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                with (target / path).open("wb") as stream:
                    stream.seek(size_bytes - len(end))
                    stream.write(end)
                files[path] = {"path": path, "sha256": table["sha256"], "size_bytes": size_bytes}
    document["files"] = list(files.values())


@lru_cache
def _zeros(size_bytes: int) -> hashlib._Hash:
    """The digest of so many zeros, to copy and go on with."""
    return hashlib.sha256(bytes(size_bytes))
