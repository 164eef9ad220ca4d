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
class LabelledRows:
    """Labelled rows of one family: what load tests send.

    `inputs` has one array [m, ...] per input tensor of the Open Inference Protocol's type in `datatypes`; `label` int64
    [m] indexes `labels`.
    """

    family: str
    labels: tuple[str, ...]
    inputs: Mapping[str, NDArray[Any]]
    datatypes: Mapping[str, str]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, slots=True)
class Samples(LabelledRows):
    """Rows of the test part of one revision, and what is known of them.

    `size_class` int64 [m] indexes the family's sizes, `predicted` int64 [m] per variant is what it answers alone,
    `confidence` float32 [m] with which calibrated probability.
    """

    size_class: NDArray[np.int64]
    predicted: Mapping[str, NDArray[np.int64]]
    confidence: Mapping[str, NDArray[np.float32]]


def read_rows(folder: RevisionFolder) -> LabelledRows:
    """Read the rows of a revision. Raises `RepositoryError`."""
    manifest = folder.manifest
    arrays = folder.samples()
    label = arrays.pop("label")
    return LabelledRows(
        family=manifest.name,
        labels=manifest.labels,
        inputs=arrays,
        datatypes={tensor.name: tensor.datatype for tensor in manifest.inputs},
        label=label,
    )


def read_samples(folder: RevisionFolder) -> Samples:
    """Read the samples of a revision. Raises `RepositoryError`, also where answers and samples differ in length."""
    manifest = folder.manifest
    rows = read_rows(folder)
    answered = {variant.name: folder.calibration(variant.name) for variant in manifest.variants}
    predicted = {name: calibration.sample_predicted for name, calibration in answered.items()}
    for variant, answers in predicted.items():
        if len(answers) != len(rows):
            raise RepositoryError(f"{folder.path}: {variant} has answers for {len(answers)} of {len(rows)} samples")
    tokens = np.array(open_preparation(folder).prepare(rows.inputs).sizes)
    return Samples(
        rows.family,
        rows.labels,
        rows.inputs,
        rows.datatypes,
        rows.label,
        size_class=np.searchsorted(np.array(manifest.sizes), tokens).astype(np.int64),
        predicted=predicted,
        confidence={name: calibration.sample_confidence for name, calibration in answered.items()},
    )
