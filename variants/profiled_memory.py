"""What models and tokenizers take in memory, as a profile has it: measured in the process that profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import psutil

from variants.manifest import TextPreparation
from variants.preparation import Preparer, Row, open_preparation
from variants.resident import kept_by, taken_beyond, taken_by
from variants.revision import RevisionFolder
from variants.session import Session
from variants.timing import Work

OPENINGS = 2
"""What opening a model takes is measured so often."""
APART = 4.0
"""By so many times the files of a model its openings may differ (of convolutions in float16 by 1.9 were seen)."""


def batch_bytes(work: Work, rows: Sequence[Row], most: int) -> int | None:
    """What the largest batch of the longest rows takes while it runs; None where the machine does not tell."""
    batch = [rows[number % len(rows)] for number in range(most)]
    # The first time, some of it stays.
    work(batch)
    return taken_by(lambda: work(batch))


def opening_bytes(open_it: Callable[[], Session], size_bytes: int) -> int | None:
    """What opening a model takes at the most beside what it keeps; None where the machine does not tell.

    More than once: where parsed weights lie decides how much of them is free in time. Where the figures are further
    apart than that can be, other threads took memory meanwhile, and the least counts.
    """
    found: list[int] = []
    for _ in range(OPENINGS):
        session, beyond_bytes = taken_beyond(open_it)
        session.close()
        if beyond_bytes is not None:
            found.append(beyond_bytes)
    if not found:
        return None
    return max(found) if max(found) - min(found) <= APART * size_bytes else min(found)


def growth_bytes(work: Work, rows: Sequence[Sequence[Row]], batches: Sequence[int]) -> int:
    """What the process gains while a batch of each kind runs that is going to be measured."""
    process = psutil.Process()
    before_bytes = int(process.memory_info().rss)
    for of_class in rows:
        for batch in batches:
            work([of_class[number % len(of_class)] for number in range(batch)])
    return max(0, int(process.memory_info().rss) - before_bytes)


def tokenizer_bytes(folder: RevisionFolder) -> int | None:
    """What the tokenizer of a revision takes while it is open and used; None where it has none.

    One must have been opened in this process before, or the library counts as well. Raises as `open_preparation`.
    """
    if not isinstance(folder.manifest.preparation, TextPreparation):
        return None
    samples = folder.samples()
    inputs = {tensor.name: samples[tensor.name] for tensor in folder.manifest.inputs}

    def opened() -> Preparer:
        preparer = open_preparation(folder)
        preparer.prepare(inputs)
        return preparer

    # The least counts: what other threads take meanwhile does not.
    return min(kept_by(partial(opened)) for _ in range(OPENINGS))
