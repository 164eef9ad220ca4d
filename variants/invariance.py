"""Does an answer depend on who shares the batch? Measured, because no amount of reading a graph tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from variants.measurements import BATCH_TOLERANCE, Invariance
from variants.preparation import LOGITS, Preparer, Row
from variants.session import Session

BATCHES = (8, 32)


def batch_invariance(
    session: Session, preparer: Preparer, rows: Sequence[Row], *, temperature: float = 1.0, jobs: int = 1
) -> Invariance:
    """Compare each row's answer alone with its answers beside the longest row, among 8 and among 32 others.

    A variant is invariant where no label changes and no probability by more than `BATCH_TOLERANCE`.
    """
    longest = max(rows, key=lambda row: row.size)

    def probabilities(members: Sequence[Row]) -> NDArray[np.float32]:
        return preparer.decode(session.run(preparer.collate(members))[LOGITS], temperature).probabilities

    def settings(threads: ThreadPoolExecutor) -> Iterator[NDArray[np.float32]]:
        padded = threads.map(lambda row: probabilities([row, longest])[:1], rows)
        yield np.concatenate(list(padded))
        for batch in BATCHES:
            groups = [rows[start : start + batch] for start in range(0, len(rows), batch)]
            yield np.concatenate(list(threads.map(probabilities, groups)))

    with ThreadPoolExecutor(jobs) as threads:
        alone = np.concatenate(list(threads.map(lambda row: probabilities([row]), rows)))
        flipped = np.zeros(len(rows), dtype=np.bool_)
        largest = 0.0
        for together in settings(threads):
            flipped |= together.argmax(axis=1) != alone.argmax(axis=1)
            largest = max(largest, float(np.abs(together - alone).max()))
    found = Invariance(
        invariant=False,
        label_flips=float(flipped.mean()),
        max_probability_delta=min(largest, 1.0),
        compared_rows=len(rows),
    )
    return found.model_copy(update={"invariant": found.within(BATCH_TOLERANCE)})
