"""What a training cost, for whoever trains with a loop of its own; recipes on modules measure themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from variants.training.peak_memory import peak_memory


@contextmanager
def cost_of_training(labelled_rows: int) -> Iterator[dict[str, float]]:
    """Yield what becomes `Artifact.facts` when the block ends: seconds, labelled rows, peak resident bytes."""
    facts: dict[str, float] = {}
    started_s = time.perf_counter()
    with peak_memory() as memory:
        yield facts
    facts |= {
        "training_s": round(time.perf_counter() - started_s, 3),
        "labelled_rows": float(labelled_rows),
        "training_peak_rss_bytes": float(memory.rss_bytes),
    }
