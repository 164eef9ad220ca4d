"""What is known of a family's variants on the same rows, from which cascades learn whom to ask again, and when."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.family import Evidence
from variants.revision import RepositoryError, RevisionFolder


def read_evidence(folder: RevisionFolder, names: Sequence[str]) -> Evidence | None:
    """Return what the named variants (at least one), in that order, answered on the validation part.

    None where that is not known of all of them, or not of the same rows. Raises `KeyError` where there is no such
    variant.
    """
    try:
        answers = [folder.calibration(name) for name in names]
    except RepositoryError:
        return None
    if any(not np.array_equal(answer.label, answers[0].label) for answer in answers):
        return None
    return Evidence(
        correct=np.stack([answer.predicted == answer.label for answer in answers]),
        confidence=np.stack([answer.confidence for answer in answers]),
        predicted=np.stack([answer.predicted for answer in answers]),
    )
