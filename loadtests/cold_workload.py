"""Hundreds of families of which few are popular: copies of one real family on disk, and who is asked for when."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.traces import Seconds
from variants.manifest import ACTIVE_FILE, MANIFEST_FILE, PROFILES_FOLDER
from variants.repository import Repository


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


def write_copies(source: Repository, family: str, root: Path, names: list[str], *, one_base: bool = False) -> None:
    """Publish copies of a family's active revision under other names; large files are hard links where they can be.

    Copies stand for families that have nothing to do with each other, so their lookup tables are not shared in memory,
    but with `one_base`: then they stand for families that were made from one model, whose tables they kept. Raises
    `RepositoryError` where the family cannot be read.
    """
    folder = source.open(family).path
    for name in names:
        target = root / name / folder.name
        for path in folder.rglob("*"):
            copied = target / path.relative_to(folder)
            if path.is_dir():
                continue
            copied.parent.mkdir(parents=True, exist_ok=True)
            if path.name == MANIFEST_FILE or path.parent.name == PROFILES_FOLDER:
                document = json.loads(path.read_text(encoding="utf-8"))
                document["name" if path.name == MANIFEST_FILE else "family"] = name
                if not one_base:
                    _let_nobody_share(document)
                copied.write_text(json.dumps(document), encoding="utf-8")
                continue
            try:
                os.link(path, copied)
            except OSError:
                shutil.copyfile(path, copied)
        (root / name / ACTIVE_FILE).write_text(f"{folder.name}\n", encoding="utf-8")


def _let_nobody_share(document: dict[str, Any]) -> None:
    """Make lookup tables ordinary weights, of which every session has its own."""
    for parts in document.get("graphs", {}).values():
        parts["weights"] = [*parts["weights"], *(table["sha256"] for table in parts["tables"])]
        parts["tables"] = []
