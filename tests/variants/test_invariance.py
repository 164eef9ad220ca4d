from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.invariance import batch_invariance
from variants.manifest import TensorPreparation, TensorSpec
from variants.measurements import BATCH_TOLERANCE, Invariance
from variants.preparation import Feeds, TensorPreparer

ROWS = [np.random.default_rng(row).standard_normal((1, 2)).astype(np.float32) for row in range(40)]


class Model:
    """A session whose logits are a function of the batch float32 [n, 2]."""

    def __init__(self, logits: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
        self.logits = logits

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        return {"logits": self.logits(feeds["x"])}


def measured(logits: Callable[[NDArray[np.float32]], NDArray[np.float32]], jobs: int = 1) -> Any:
    model: Any = Model(logits)
    preparer = TensorPreparer(TensorPreparation(), TensorSpec(name="x", datatype="FP32", shape=(-1, 2)))
    return batch_invariance(model, preparer, ROWS, jobs=jobs)


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_model_that_looks_at_each_row_alone_is_invariant(jobs: int) -> None:
    """No label flips and no probability moves where rows are answered one by one."""
    result = measured(lambda x: 2 * x, jobs)
    assert (True, 0.0, 0.0, 40) == tuple(result.model_dump().values())


def test_a_label_that_follows_the_neighbours_is_counted() -> None:
    """A model that compares with the largest of the batch flips labels, and the share of rows is reported."""
    result = measured(lambda x: np.stack([x[:, 0], np.full(len(x), x[:, 0].max())], axis=1))
    assert not result.invariant
    assert result.label_flips > 0.5


def test_a_probability_that_follows_the_neighbours_is_enough() -> None:
    """No label flips, but confidences move with the batch size: not invariant."""
    result = measured(lambda x: np.stack([np.full(len(x), 1.0 + len(x)), np.zeros(len(x))], axis=1).astype(np.float32))
    assert (False, 0.0) == (result.invariant, result.label_flips)
    assert pytest.approx(1 - 1 / (1 + np.exp(-2)), abs=1e-4) == result.max_probability_delta


@pytest.mark.parametrize(
    ("flips", "delta", "tolerance", "words"),
    [
        (0.0, 2e-7, 1e-3, "the same"),
        (0.0, 2e-7, 5e-3, "the same"),
        (0.0, 2.8e-3, 1e-3, "no"),
        (0.0, 2.8e-3, 2.8e-3, "within 0.0028"),
        (0.0, 2.8e-3, 5e-3, "within 0.005"),
        (0.0, 2e-4, 1e-4, "no"),
        (0.01, 2.8e-3, 0.1, "no"),
    ],
)
def test_how_far_answers_may_move_is_said(flips: float, delta: float, tolerance: float, words: str) -> None:
    """The same, within what is allowed, or not; a label that changes is beyond any tolerance."""
    found = Invariance(
        invariant=not flips and delta <= BATCH_TOLERANCE,
        label_flips=flips,
        max_probability_delta=delta,
        compared_rows=1,
    )
    assert (words, words != "no") == (found.in_words(tolerance), found.within(tolerance))


def test_rounding_in_another_order_still_counts_as_the_same_answer() -> None:
    """Differences of a float32 sum's size do not make a model depend on its batch."""
    assert measured(lambda x: x * np.float32(1 + 1e-6 * len(x))).invariant
