"""How good outputs are, task by task: the one place that a task other than classification has to be entered.

A task gives every row a score, and the mean of the scores is the quality that variants are compared by. So two variants
are always compared row by row (`variants.paired`), whatever the task.

| task | outputs, targets | score of a row | quality |
|---|---|---|---|
| classification | logits float32 [n, k]; int64 [n] | 1 where the likeliest label is right, else 0 | accuracy |
| regression | float [n, k] both | 1 - squared error / variance of the targets | explained variance (R²) |
| embedding | float [n, d]; the original's [n, e] | Spearman's rank correlation between its similarities to the other \
rows and those under the original | rank agreement |

Families that can be built and served are classifiers; a new kind of family begins with its task here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.evaluate import quality
from variants.measurements import Quality

RANKED_ROWS = 1000
"""Embeddings are compared on the first so many rows: similarities grow with the square."""

Scores = NDArray[np.float64]
Outputs = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Task:
    """`scores(outputs, targets)` are float64 [rows], at most 1; `quality` sums them up with its standard error."""

    name: str
    scores: Callable[[Outputs, Outputs], Scores]
    quality: Callable[[Outputs, Outputs], Quality]


def task_named(name: str) -> Task:
    """Return a task. Raises `ValueError` naming the known ones."""
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not one of {', '.join(TASKS)}")
    return TASKS[name]


def _hits(logits: Outputs, labels: Outputs) -> Scores:
    right: Scores = (logits.argmax(axis=1) == labels).astype(np.float64)
    return right


def _classified(logits: Outputs, labels: Outputs) -> Quality:
    return quality(labels, logits.argmax(axis=1), logits.shape[1])


def _explained(predicted: Outputs, targets: Outputs) -> Scores:
    """Coefficient of determination as a mean over rows; columns are first scaled to the same variance."""
    targets = targets.reshape(len(targets), -1).astype(np.float64)
    error = (predicted.reshape(targets.shape) - targets) ** 2
    variance = np.maximum(targets.var(axis=0), np.finfo(np.float64).tiny)
    explained: Scores = 1.0 - (error / variance).mean(axis=1)
    return explained


def _regressed(predicted: Outputs, targets: Outputs) -> Quality:
    error = predicted.astype(np.float64).reshape(targets.shape) - targets
    return _mean_of("explained variance", _explained(predicted, targets), rmse=math.sqrt(float((error**2).mean())))


def _rank_agreement(embedded: Outputs, original: Outputs) -> Scores:
    """Of at least three rows."""
    ours, theirs = (_similarity_ranks(rows[:RANKED_ROWS]) for rows in (embedded, original))
    ours -= ours.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    correlation: Scores = (ours * theirs).sum(axis=1) / np.sqrt((ours**2).sum(axis=1) * (theirs**2).sum(axis=1))
    return correlation


def _similarity_ranks(rows: Outputs) -> Scores:
    """Rank every other row by its cosine similarity to each row: float64 [n, n - 1]."""
    unit = _unit(rows)
    others = (unit @ unit.T)[~np.eye(len(rows), dtype=np.bool_)].reshape(len(rows), -1)
    return others.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable").astype(np.float64)


def _embedded(embedded: Outputs, original: Outputs) -> Quality:
    cosine = None
    if embedded.shape == original.shape:
        cosine = float(np.clip((_unit(embedded) * _unit(original)).sum(axis=1).mean(), -1.0, 1.0))
    return _mean_of("rank agreement", _rank_agreement(embedded, original), cosine=cosine)


def _unit(rows: Outputs) -> Scores:
    rows = rows.reshape(len(rows), -1).astype(np.float64)
    unit: Scores = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return unit


def _mean_of(metric: Any, scores: Scores, **others: float | None) -> Quality:
    """Clip the mean to [0, 1]: worse than answering the mean of the targets is no quality at all."""
    error = float(scores.std(ddof=1) / math.sqrt(len(scores))) if len(scores) > 1 else 1.0
    return Quality(
        metric=metric,
        value=float(np.clip(scores.mean(), 0.0, 1.0)),
        standard_error=min(1.0, error),
        samples=len(scores),
        **others,
    )


CLASSIFICATION = Task("classification", _hits, _classified)
TASKS = {
    task.name: task
    for task in (
        CLASSIFICATION,
        Task("regression", _explained, _regressed),
        Task("embedding", _rank_agreement, _embedded),
    )
}
