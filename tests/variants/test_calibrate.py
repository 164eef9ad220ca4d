from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from variants.calibrate import (
    calibrate,
    cross_fitted_confidence,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from variants.preparation import decode

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def drawn(rows: int, temperature: float, seed: int = 0) -> tuple[Logits, Labels]:
    """Logits, and labels drawn from their softmax at the given temperature."""
    random = np.random.default_rng(seed)
    logits = (3 * random.standard_normal((rows, 3))).astype(np.float32)
    cumulated = decode(logits, temperature).probabilities.cumsum(axis=1)
    return logits, np.minimum((random.random((rows, 1)) > cumulated).sum(axis=1), 2)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    """With many rows the fit recovers the true temperature within its statistical error."""
    logits, labels = drawn(20_000, temperature)
    assert pytest.approx(temperature, rel=0.06) == fit_temperature(logits, labels)


@given(st.integers(0, 1000), st.floats(0.05, 20.0))
def test_no_other_temperature_is_likelier(seed: int, other: float) -> None:
    """The fitted temperature has the least negative log-likelihood of all in range."""
    logits, labels = drawn(40, 1.5, seed)
    best = negative_log_likelihood(logits, labels, fit_temperature(logits, labels))
    assert best <= negative_log_likelihood(logits, labels, other) + 1e-6


def test_rows_that_are_always_right_do_not_overflow() -> None:
    """Where every temperature is as likely, the one found is in range and the confidences are finite."""
    logits = np.array([[9, -9], [-9, 9]] * 5, dtype=np.float32)
    made = calibrate(logits, np.array([0, 1] * 5), logits, seed=0)
    assert 0.05 <= made.temperature <= 1.0
    assert np.isfinite(made.confidence).all()


def test_cross_fitting_leaves_a_row_out_of_its_own_fit() -> None:
    """Changing one row's label changes no confidence in its own half, only in the other."""
    logits, labels = drawn(60, 1.0)
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 3
    before = cross_fitted_confidence(logits, labels, seed=3)
    after = cross_fitted_confidence(logits, changed, seed=3)
    assert before[7] == after[7]
    assert 30 == int((before == after).sum())


def test_calibration_error_of_known_bins() -> None:
    """Two bins, one honest and one that promises 0.9 and keeps 0.5, weighted by their rows."""
    confidence = np.array([0.55] * 20 + [0.9] * 20, dtype=np.float32)
    correct = np.array([True] * 11 + [False] * 9 + [True] * 10 + [False] * 10)
    assert pytest.approx(0.5 * 0.0 + 0.5 * 0.4) == expected_calibration_error(confidence, correct)


def test_calibration_is_saved_as_the_repository_reads_it(tmp_path: Path) -> None:
    """The archive has the arrays that the repository names, in their types; confidence is the chosen label's."""
    logits, labels = drawn(50, 1.0)
    calibrate(logits, labels, logits[:5], seed=0).save(tmp_path / "calibration.npz")
    with np.load(tmp_path / "calibration.npz", allow_pickle=False) as saved:
        kinds = {name: (saved[name].dtype.name, len(saved[name])) for name in saved.files}
        assert logits.argmax(axis=1).tolist() == saved["predicted"].tolist()
        assert (saved["confidence"] >= 1 / 3).all()
    assert kinds == {
        "label": ("int64", 50),
        "predicted": ("int64", 50),
        "confidence": ("float32", 50),
        "sample_predicted": ("int64", 5),
        "sample_confidence": ("float32", 5),
    }
