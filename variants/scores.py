"""What each row of the test part scored under each variant: by which variants are compared row by row afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants.revision import RepositoryError, RevisionFolder

SCORES_FILE = "scores.npz"


@dataclass(frozen=True, slots=True)
class Scores:
    """`of` [n] float64 by variant, all on the same rows; `rows` says which those are."""

    rows: str
    of: dict[str, NDArray[np.float64]]


def save_scores(path: Path, scores: NDArray[np.float64] | NDArray[np.bool_]) -> None:
    """Write one array `score` [n]; zeros and ones take a byte each before they are compressed."""
    binary = np.isin(scores, (0, 1)).all()
    np.savez_compressed(path, score=scores.astype(np.uint8 if binary else np.float32))


def read_scores(folder: RevisionFolder, names: Sequence[str]) -> Scores | None:
    """Return the scores of the named variants, None where they are not known on the same rows.

    Revisions without stored scores have what their variants answered on the validation part and the kept samples, which
    are fewer rows, and of which calibration has seen one part.
    """
    try:
        stored = {name: _stored(folder, name) for name in names}
        if _same_length(stored):
            return Scores("test part", stored)
    except RepositoryError:
        pass
    try:
        label = folder.samples()["label"]
        known = {name: _from_calibration(folder, name, label) for name in names}
    except RepositoryError:
        return None
    return Scores("validation part and kept samples", known) if _same_length(known) else None


def _stored(folder: RevisionFolder, name: str) -> NDArray[np.float64]:
    file = folder.manifest.variant(name).scores_file
    if file is None:
        raise RepositoryError(f"{folder.path}: no scores of {name} are stored")
    path = folder.file(file)
    try:
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive["score"], dtype=np.float64)
    except Exception as error:  # a damaged archive raises anything from zipfile, zlib, numpy or the OS
        raise RepositoryError(f"{path}: cannot be read as scores: {' '.join(str(error).split())[:200]}") from error


def _from_calibration(folder: RevisionFolder, name: str, label: NDArray[np.int64]) -> NDArray[np.float64]:
    answers = folder.calibration(name)
    if len(answers.sample_predicted) != len(label):
        raise RepositoryError(f"{folder.path}: the samples are not those that {name} answered")
    hits = np.concatenate([answers.predicted == answers.label, answers.sample_predicted == label])
    return hits.astype(np.float64)


def _same_length(scores: dict[str, NDArray[np.float64]]) -> bool:
    return len({len(values) for values in scores.values()}) == 1
