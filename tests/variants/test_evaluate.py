from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from variants.evaluate import batches_by_length, predict, quality
from variants.preparation import Feeds, Row


class Lengths:
    """A stage whose logits say how long each row is, how long its batch is padded, and what came before."""

    input_names = ("rows",)

    def __init__(self, adds: float = 0.0) -> None:
        self.adds = adds

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        lengths = (feeds["rows"] > 0).sum(axis=1)
        return {"logits": np.stack([lengths + self.adds, np.full_like(lengths, feeds["rows"].shape[1])], axis=1)}


class Padding:
    def collate(self, rows: list[Row]) -> Feeds:
        longest = max(len(row) for row in rows)
        return {"rows": np.stack([np.pad(row, (0, longest - len(row))) for row in rows])}


def test_quality_of_a_known_confusion() -> None:
    """Accuracy, error and macro figures of a small table worked out by hand; a class never predicted counts as 0."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 1, 0, 0])
    measured = quality(labels, predicted, 3)
    assert (5 / 8, 8) == (measured.value, measured.samples)
    assert pytest.approx((5 / 8 * 3 / 8 / 8) ** 0.5) == measured.standard_error
    assert pytest.approx((3 / 5 + 2 / 3 + 0) / 3) == measured.precision
    assert pytest.approx((3 / 4 + 2 / 3 + 0) / 3) == measured.recall
    assert pytest.approx((2 / 3 + 2 / 3 + 0) / 3) == measured.f1


@given(arrays(np.int64, st.integers(1, 50), elements=st.integers(0, 3)))
def test_perfect_answers_have_perfect_quality(labels: NDArray[np.int64]) -> None:
    """Right answers give accuracy 1 without error, whatever the labels."""
    measured = quality(labels, labels, 4)
    assert (1.0, 0.0) == (measured.value, measured.standard_error)


@given(arrays(np.int64, st.tuples(st.just(2), st.integers(1, 40)), elements=st.integers(0, 6)))
def test_quality_is_what_scikit_learn_says(pairs: NDArray[np.int64]) -> None:
    """Macro figures are those of scikit-learn, with classes that do not occur counted as 0."""
    labels, predicted = pairs
    measured = quality(labels, predicted, 7)
    expected = precision_recall_fscore_support(labels, predicted, labels=range(7), average="macro", zero_division=0)
    assert pytest.approx(expected[:3]) == (measured.precision, measured.recall, measured.f1)
    assert pytest.approx((labels == predicted).mean()) == measured.value


@pytest.mark.parametrize("jobs", [1, 3])
def test_predictions_come_back_in_the_rows_order(jobs: int) -> None:
    """Rows are batched by length, longest first, but answered in their own order, once for each stage of the path."""
    rows: list[Row] = [np.ones(length, dtype=np.int64) for length in (3, 9, 1, 7, 2, 8)]
    path: Any = [Lengths(), Lengths(adds=100.0)]
    preparer: Any = Padding()
    first, second = predict(path, preparer, rows, jobs=jobs, batch=2)
    assert [[3, 7], [9, 9], [1, 2], [7, 7], [2, 2], [8, 9]] == first.tolist()
    assert [103, 109, 101, 107, 102, 108] == second[:, 0].tolist()


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200), st.integers(1, 40))
def test_batches_hold_every_row_once_by_falling_length(lengths: list[int], batch: int) -> None:
    """No row is lost or doubled, none of a batch is shorter than any of the next."""
    order = np.concatenate(list(batches_by_length([np.zeros(length) for length in lengths], batch)))
    assert list(range(len(lengths))) == sorted(order.tolist())
    assert sorted(lengths, reverse=True) == [lengths[row] for row in order]


def test_predictions_name_the_input_that_is_missing() -> None:
    """A stage whose input nobody gives is a `KeyError` with the input's name."""
    stage: Any = Lengths()
    stage.input_names = ("hidden_1",)
    preparer: Any = Padding()
    with pytest.raises(KeyError, match="hidden_1"):
        predict([stage], preparer, [np.ones(2, dtype=np.int64)])
