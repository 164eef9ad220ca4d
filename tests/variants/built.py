"""Building small families, with one candidate more than they have."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from variants.build import build_family
from variants.progress import LineDisplay
from variants.recipes.artifact import Artifact
from variants.repository import Repository
from variants.spec import BuildContext, Candidate, Dataset, FamilySpec

WEIGHTS = np.array([[-1, 1], [-1, 1]], dtype=np.float32)


def build(
    spec: FamilySpec, repository: Repository, output: io.StringIO | None = None, *, counterparts: bool = False
) -> Any:
    display = LineDisplay("build", output or io.StringIO())
    cache = repository.root / "cache"
    return build_family(spec, repository, display=display, cache=cache, jobs=1, counterparts=counterparts)


def with_candidate(spec: FamilySpec, candidate: Candidate) -> FamilySpec:
    """The family with one more candidate."""

    def more(context: BuildContext, data: Dataset) -> Iterator[Candidate]:
        yield from spec.build(context, data)
        yield candidate

    return replace(spec, build=more)


def failing(error: BaseException, essential: bool = False) -> Candidate:
    def fail(path: Path) -> Artifact:
        path.write_bytes(b"half a model")
        raise error

    return Candidate("broken", fail, essential=essential)
