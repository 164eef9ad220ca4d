"""The labelled rows that load tests send, and what each variant is known to answer on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.preparation import open_preparation
from variants.repository import RepositoryError, RevisionFolder


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows of the test part of one revision.

    `inputs` has one array [m, ...] per input tensor, `label` int64 [m] indexes `labels`, `size_class` int64 [m] indexes
    the family's sizes, `predicted` int64 [m] per variant is what it answers alone, `confidence` float32 [m] with which
    calibrated probability.
    """

    family: str
    labels: tuple[str, ...]
    inputs: Mapping[str, NDArray[Any]]
    datatypes: Mapping[str, str]
    label: NDArray[np.int64]
    size_class: NDArray[np.int64]
    predicted: Mapping[str, NDArray[np.int64]]
    confidence: Mapping[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.label)


def read_samples(folder: RevisionFolder) -> Samples:
    """Read the samples of a revision. Raises `RepositoryError`, also where answers and samples differ in length."""
    manifest = folder.manifest
    arrays = folder.samples()
    label = arrays.pop("label")
    answered = {variant.name: folder.calibration(variant.name) for variant in manifest.variants}
    predicted = {name: calibration.sample_predicted for name, calibration in answered.items()}
    for variant, answers in predicted.items():
        if len(answers) != len(label):
            raise RepositoryError(f"{folder.path}: {variant} has answers for {len(answers)} of {len(label)} samples")
    tokens = np.array(open_preparation(folder).prepare(arrays).sizes)
    return Samples(
        family=manifest.name,
        labels=manifest.labels,
        inputs=arrays,
        datatypes={tensor.name: tensor.datatype for tensor in manifest.inputs},
        label=label,
        size_class=np.searchsorted(np.array(manifest.sizes), tokens).astype(np.int64),
        predicted=predicted,
        confidence={name: calibration.sample_confidence for name, calibration in answered.items()},
    )
