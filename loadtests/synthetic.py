"""A family that exists on paper only, for benchmarks of the routing alone: no build, no models, any machine.

Five variants whose answers come from a common latent difficulty: a row is right where skill minus difficulty plus the
variant's own noise is positive, so that larger variants are mostly, not always, right where smaller ones are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loadtests.samples import Samples
from router.family import Evidence, Family, VariantProfile
from router.latency import table

NAME = "synthetic"
_ROWS = 4000
_MEDIAN_MS = (1.0, 2.0, 3.5, 6.0, 10.0)
ACCURACY = (0.79, 0.82, 0.85, 0.88, 0.905)
_FIXED_SHARE = 0.3
"""Of a batch of one, what does not grow with the batch."""
_OWN_NOISE = 0.5
"""Standard deviation of a variant's own noise, in units of the rows' difficulty."""
_BATCHES = (1, 2, 4, 8, 16, 32)


def synthetic(
    seed: int = 0, name: str = NAME, slower: float = 1.0, accuracy: Sequence[float] = ACCURACY
) -> tuple[Family, Samples]:
    """The family with its evidence, and 4000 other rows to be asked for; both depend on the arguments alone.

    All variants take `slower` times their usual seconds; `accuracy` has that of each, ascending in (0, 1).
    """
    rng = np.random.default_rng(seed)
    known, asked = _answers(rng, accuracy), _answers(rng, accuracy)
    names = tuple(f"v{index}" for index in range(len(_MEDIAN_MS)))
    family = Family(
        name,
        tuple(
            VariantProfile(variant, float(known[0][index].mean()), table(_BATCHES, *_rows_s(slower * median_ms)))
            for index, (variant, median_ms) in enumerate(zip(names, _MEDIAN_MS, strict=True))
        ),
        evidence=Evidence(known[0], known[1]),
    )
    correct, confidence = asked
    label = rng.integers(0, 2, _ROWS)
    samples = Samples(
        family=name,
        labels=("no", "yes"),
        inputs={},
        datatypes={},
        label=label,
        size_class=np.zeros(_ROWS, dtype=np.int64),
        predicted={v: np.where(correct[index], label, 1 - label) for index, v in enumerate(names)},
        confidence={v: confidence[index] for index, v in enumerate(names)},
    )
    return family, samples


def _rows_s(median_ms: float) -> tuple[tuple[float, ...]]:
    fixed_s, row_s = median_ms * _FIXED_SHARE / 1000.0, median_ms * (1.0 - _FIXED_SHARE) / 1000.0
    return (tuple(fixed_s + row_s * batch for batch in _BATCHES),)


def _answers(rng: np.random.Generator, accuracy: Sequence[float]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Correctness and calibrated confidence of every variant, [variants, rows]."""
    difficulty = rng.standard_normal(_ROWS)
    spread = math.hypot(1.0, _OWN_NOISE)
    correct = np.zeros((len(accuracy), _ROWS), dtype=np.bool_)
    confidence = np.zeros((len(accuracy), _ROWS), dtype=np.float32)
    for index, share in enumerate(accuracy):
        skill = _normal_quantile(share) * spread
        # What a variant senses of its own margin: all of the difficulty, but not its own noise.
        correct[index] = skill - difficulty + _OWN_NOISE * rng.standard_normal(_ROWS) > 0.0
        certain = np.array([_normal_share((skill - d) / _OWN_NOISE) for d in difficulty.tolist()])
        confidence[index] = np.clip(certain, 0.5, 0.999)
    return correct, confidence


def _normal_share(value: float) -> float:
    """Share of a standard normal distribution below `value`."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))


def _normal_quantile(share: float) -> float:
    low, high = -8.0, 8.0
    while high - low > 1e-9:
        middle = (low + high) / 2.0
        low, high = (middle, high) if _normal_share(middle) < share else (low, middle)
    return low
