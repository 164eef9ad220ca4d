"""Every task scores rows, and the mean of the scores is its quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import precision_recall_fscore_support, r2_score

from variants.tasks import TASKS, task_named

RANDOM = np.random.default_rng(7)
TARGETS = RANDOM.normal(size=(300, 2)) * [1.0, 10.0]
EMBEDDED = RANDOM.normal(size=(40, 8))
EXAMPLES: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
    "classification": (RANDOM.normal(size=(300, 3)).astype(np.float32), RANDOM.integers(0, 3, 300)),
    "regression": (TARGETS + RANDOM.normal(size=(300, 2)), TARGETS),
    "embedding": (EMBEDDED + 0.3 * RANDOM.normal(size=(40, 8)), EMBEDDED),
}


@pytest.mark.parametrize("name", TASKS)
def test_quality_is_the_mean_of_the_scores(name: str) -> None:
    """What variants are compared by, row by row, adds up to what they are ranked by."""
    task = task_named(name)
    scores, measured = task.scores(*EXAMPLES[name]), task.quality(*EXAMPLES[name])
    assert pytest.approx(scores.mean()) == measured.value
    assert (len(scores), True) == (measured.samples, 0.0 < measured.standard_error < 0.2)


@pytest.mark.parametrize("name", ["regression", "embedding"])
def test_the_original_agrees_with_itself(name: str) -> None:
    """Without any error, quality is 1 and its standard error 0."""
    _, targets = EXAMPLES[name]
    measured = task_named(name).quality(targets, targets)
    assert pytest.approx((1.0, 0.0), abs=1e-9) == (measured.value, measured.standard_error)


def test_macro_figures_are_those_of_scikit_learn() -> None:
    """Macro precision, recall and F1 come with bootstrap errors of the size that resampling the rows gives."""
    logits, labels = EXAMPLES["classification"]
    measured = task_named("classification").quality(logits, labels)
    expected = precision_recall_fscore_support(labels, logits.argmax(axis=1), average="macro", zero_division=0)[:3]
    assert pytest.approx(expected) == (measured.precision, measured.recall, measured.f1)
    rows = [RANDOM.integers(0, 300, 300) for _ in range(300)]
    drawn = [precision_recall_fscore_support(labels[r], logits[r].argmax(axis=1), average="macro")[:3] for r in rows]
    assert pytest.approx(np.std(drawn, axis=0), rel=0.25) == (
        measured.precision_error,
        measured.recall_error,
        measured.f1_error,
    )


def test_explained_variance_is_that_of_scikit_learn() -> None:
    """Regression is measured by R² over uniformly weighted columns, and by the root mean square error."""
    predicted, targets = EXAMPLES["regression"]
    measured = task_named("regression").quality(predicted, targets)
    assert pytest.approx(r2_score(targets, predicted)) == measured.value
    assert pytest.approx(((predicted - targets) ** 2).mean() ** 0.5) == measured.rmse


def test_rank_agreement_is_that_of_scipy() -> None:
    """Of each row: the Spearman correlation of its similarities to the others; other dimensions may be compared."""
    ours, theirs = EXAMPLES["embedding"]
    cosines = [rows @ rows.T / np.outer(*[np.linalg.norm(rows, axis=1)] * 2) for rows in (ours, theirs)]
    others = np.arange(40) != 5
    task = task_named("embedding")
    assert pytest.approx(spearmanr(cosines[0][5, others], cosines[1][5, others])[0]) == task.scores(ours, theirs)[5]
    assert task.quality(ours, theirs).cosine is not None
    assert task.quality(ours[:, :3], theirs).cosine is None


def test_worse_than_the_mean_is_no_quality() -> None:
    """A negative R² counts as 0, so that quality stays a fraction."""
    assert 0.0 == task_named("regression").quality(-TARGETS, TARGETS).value


def test_an_unknown_task_is_named() -> None:
    """What there is no way to measure is refused with what there is."""
    with pytest.raises(ValueError, match="'ranking' is not one of classification, regression, embedding"):
        task_named("ranking")
