"""What is measured of made variants, with labels and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.variants.conftest import save_linear_model
from variants.assessment import Assessment, HeldOut, MadeVariant, assess
from variants.manifest import TensorPreparation, TensorSpec
from variants.preparation import TensorPreparer
from variants.recipes.artifact import Artifact

RANDOM = np.random.default_rng(2)
WEIGHTS = RANDOM.normal(size=(4, 3)).astype(np.float32)
SMALL = WEIGHTS * np.array([[1], [1], [1], [0]], np.float32)
ROWS = RANDOM.normal(size=(200, 4)).astype(np.float32)


def assessed(folder: Path, labels: NDArray[np.int64], *, labelled: bool = True) -> dict[str, Assessment]:
    """Two variants on 100 validation and 100 test rows: `large` has `WEIGHTS`, `small` those without the last row."""
    made = []
    for parameters, (name, values) in enumerate((("small", SMALL), ("large", WEIGHTS))):
        path = save_linear_model(folder / f"{name}.onnx", values)
        made.append(MadeVariant(name, Artifact(path, "by hand", (), parameters), {}))
    preparer = TensorPreparer(TensorPreparation(), TensorSpec(name="x", datatype="FP32", shape=(-1, 4)))
    prepared = preparer.prepare({"x": ROWS}).values
    rows = HeldOut(prepared[:100], labels[:100], prepared[100:], labels[100:], samples=50, labelled=labelled)
    return assess(made, preparer, rows, seed=0, jobs=1, advance=lambda done: None)


def test_labels_are_what_variants_are_measured_by(tmp_path: Path) -> None:
    """Accuracy is the mean of the rows' scores; MACs are those of one row."""
    for assessment in assessed(tmp_path, RANDOM.integers(0, 3, 200)).values():
        assert ("accuracy", 12) == (assessment.quality.metric, assessment.macs)
        assert pytest.approx(assessment.quality.value) == assessment.scores.mean() < 0.6


def test_without_labels_the_original_is_agreed_with(tmp_path: Path) -> None:
    """The variant that is the original agrees with itself; the other as often as its answers are the same."""
    answers = (ROWS @ WEIGHTS).argmax(axis=1)
    found = assessed(tmp_path, answers, labelled=False)
    assert {"agreement"} == {one.quality.metric for one in found.values()}
    same = (ROWS @ SMALL).argmax(axis=1)[100:] == answers[100:]
    assert (1.0, same.mean()) == (found["large"].quality.value, found["small"].quality.value)
    assert same.tolist() == found["small"].scores.astype(bool).tolist()
