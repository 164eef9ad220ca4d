"""Confidence that means what it says: temperature scaling, fitted on the validation part.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from variants.preparation import decode

_LOWEST, _HIGHEST = 0.05, 20.0
_GOLDEN = (math.sqrt(5) - 1) / 2


def negative_log_likelihood(logits: NDArray[np.float32], labels: NDArray[np.int64], temperature: float) -> float:
    """Return the mean of -log p(label) under the softmax of `logits / temperature`, in nats."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    chosen = scaled[np.arange(len(labels)), labels]
    return float((np.log(np.exp(scaled).sum(axis=1)) - chosen).mean())


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the temperature in [0.05, 20] under which the labels are likeliest.

    The likelihood is convex in 1 / temperature, so it has one minimum over any monotone scale of it: golden section.
    """
    low, high = math.log(_LOWEST), math.log(_HIGHEST)
    while high - low > 1e-4:
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        left_loss, right_loss = (negative_log_likelihood(logits, labels, math.exp(at)) for at in (left, right))
        if left_loss < right_loss:
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def cross_fitted_confidence(logits: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Return each row's confidence float32 [n] under a temperature fitted on the half that it is not in.

    So the confidences are as honest as those of new rows, though the same part is used to fit.
    """
    halves = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    confidence = np.empty(len(labels), dtype=np.float32)
    for held_out, fitted in (halves, halves[::-1]):
        temperature = fit_temperature(logits[fitted], labels[fitted])
        confidence[held_out] = decode(logits[held_out], temperature).confidences
    return confidence


def expected_calibration_error(confidence: NDArray[np.float32], correct: NDArray[np.bool_], bins: int = 10) -> float:
    """Return the mean distance between confidence and accuracy over equal-width bins, weighted by their rows."""
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    rows = np.bincount(bin_of, minlength=bins)
    distance = np.abs(np.bincount(bin_of, confidence - correct, minlength=bins))
    return float(distance.sum() / rows.sum())


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A variant's temperature, and the arrays of its `calibration.npz` (see `variants.repository.Calibration`)."""

    temperature: float
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    sample_predicted: NDArray[np.int64]
    sample_confidence: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write `calibration.npz`."""
        np.savez_compressed(
            path,
            label=self.label,
            predicted=self.predicted,
            confidence=self.confidence,
            sample_predicted=self.sample_predicted,
            sample_confidence=self.sample_confidence,
        )


def calibrate(
    validation: NDArray[np.float32],
    labels: NDArray[np.int64],
    samples: NDArray[np.float32],
    seed: int,
    temperature: float | None = None,
) -> Calibrated:
    """Calibrate from logits float32 [n, k] and labels of the validation part; `samples` are logits of other rows.

    A `temperature` that is given is not fitted.
    """
    if temperature is None:
        temperature = fit_temperature(validation, labels)
        confidence = cross_fitted_confidence(validation, labels, seed)
    else:
        confidence = decode(validation, temperature).confidences
    answered = decode(samples, temperature)
    return Calibrated(
        temperature=temperature,
        label=labels,
        predicted=validation.argmax(axis=1),
        confidence=confidence,
        sample_predicted=answered.labels,
        sample_confidence=answered.confidences,
    )
