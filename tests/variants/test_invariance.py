from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from variants.invariance import batch_invariance
from variants.manifest import TensorPreparation, TensorSpec
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


def test_rounding_in_another_order_still_counts_as_the_same_answer() -> None:
    """Differences of a float32 sum's size do not make a model depend on its batch."""
    assert measured(lambda x: x * np.float32(1 + 1e-6 * len(x))).invariant
