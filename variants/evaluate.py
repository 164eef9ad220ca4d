"""What a variant answers and how good that is, measured through the session that serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from variants.manifest import Quality
from variants.preparation import LOGITS, Feeds, Preparer, Row
from variants.session import Session
from variants.stages import run_each, run_stages

BATCH = 16
"""On a core of its own, larger batches only add padding."""

DRAWS = 400
"""Bootstrap samples behind a standard error: known to 4 %, in milliseconds."""

Logits = NDArray[np.float32]


def batches_by_length(rows: Sequence[Row], batch: int = BATCH) -> Iterator[NDArray[np.int64]]:
    """Yield row numbers int64 [<= batch] such that rows of like length share a batch, the longest first."""
    order = np.argsort([-row.size for row in rows], kind="stable")
    for start in range(0, len(order), batch):
        yield order[start : start + batch]


def predict(
    path: Sequence[Session],
    preparer: Preparer,
    rows: Sequence[Row],
    *,
    jobs: int = 1,
    batch: int = BATCH,
) -> list[Logits]:
    """Return the logits float32 [len(rows), k] after each stage of a path, batches spread over `jobs` threads."""
    groups = list(batches_by_length(rows, batch))

    def answers(group: NDArray[np.int64]) -> list[Logits]:
        return [answer.logits for answer in run_each(path, preparer.collate([rows[row] for row in group]))]

    logits: list[Logits] = []
    with ThreadPoolExecutor(jobs) as threads:
        for group, stages in zip(groups, threads.map(answers, groups), strict=True):
            if not logits:
                logits = [np.empty((len(rows), stage.shape[1]), dtype=np.float32) for stage in stages]
            for whole, part in zip(logits, stages, strict=True):
                whole[group] = part
    return logits


def quality(labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Quality:
    """Return accuracy with its binomial standard error, and macro precision, recall and F1 with theirs (bootstrap).

    A class that is never predicted (or never occurs) counts as precision (or recall) 0.
    """
    # Only the pairs that occur are kept: of a thousand classes there could be a million.
    pairs, counts = np.unique(labels * classes + predicted, return_counts=True)
    label, answer = pairs // classes, pairs % classes
    accuracy = float(counts[label == answer].sum() / len(labels))
    precision, recall, f1 = (float(value[0]) for value in _macro(label, answer, counts[np.newaxis], classes))
    # Rows drawn with replacement are counts drawn from the pairs.
    drawn = np.random.default_rng(0).multinomial(len(labels), counts / len(labels), size=DRAWS)
    errors = [min(1.0, float(values.std())) for values in _macro(label, answer, drawn, classes)]
    return Quality(
        value=accuracy,
        standard_error=math.sqrt(accuracy * (1 - accuracy) / len(labels)),
        precision=precision,
        recall=recall,
        f1=f1,
        precision_error=errors[0],
        recall_error=errors[1],
        f1_error=errors[2],
        samples=len(labels),
    )


def _macro(
    label: NDArray[np.int64], answer: NDArray[np.int64], counts: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return macro precision, recall and F1, each [draws], where pair i of label and answer occurs counts[:, i] times.

    `label` and `answer` are [pairs], `counts` is [draws, pairs].
    """
    hits, predicted, occurring = (np.zeros((len(counts), classes), dtype=np.int64) for _ in range(3))
    right = label == answer
    # Fancy indices would count a class once; its pairs are added one after the other.
    np.add.at(hits.T, label[right], counts.T[right])
    np.add.at(predicted.T, answer, counts.T)
    np.add.at(occurring.T, label, counts.T)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(occurring, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    return precision.mean(axis=-1), recall.mean(axis=-1), f1.mean(axis=-1)


def paths_agree(whole: Session, path: Sequence[Session], preparer: Preparer, rows: Sequence[Row]) -> bool:
    """Say whether a path's last answer is bit for bit the whole graph's, one row alone and all rows in one batch."""
    return all(
        np.array_equal(run_stages([whole], feeds).logits, run_stages(path, feeds).logits)
        for feeds in (preparer.collate(rows[:1]), preparer.collate(rows))
    )


def largest_difference(session: Session, reference: Callable[[Feeds], Logits], feeds: Feeds) -> tuple[float, float]:
    """Return the largest absolute difference between a model's logits and the original's on the same feeds.

    The second number is that as a share of the original's largest logit, or of 1 where all are smaller: what float32
    arithmetic explains grows with them.
    """
    original = reference(feeds)
    difference = float(np.abs(session.run(feeds)[LOGITS] - original).max())
    return difference, difference / max(1.0, float(np.abs(original).max()))
