"""Running the stages of a path, and carrying the state of each row from one stage to the next.

A stage gives `logits` and, where another can follow it, one more output: the state, float32 [n, t, d] for text and
float32 [n, ...] for tensors. The next stage takes it as its one input that is not `attention_mask`. Between two stages
rows may change company, so a state is kept row by row: cut to the row's own tokens, and padded again to the longest
row of the next batch. What stands behind a row's own tokens is masked, so zeros do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from variants.preparation import ATTENTION_MASK, LOGITS, Feeds
from variants.session import Session

State = NDArray[np.float32]


class StageAnswer(NamedTuple):
    """What a stage gives for a batch: `logits` float32 [n, k] and the state [n, ...], None where nothing follows."""

    logits: NDArray[np.float32]
    state: State | None


def run_each(stages: Sequence[Session], feeds: Feeds) -> Iterator[StageAnswer]:
    """Run consecutive stages, each with the state of the one before; yield what each of them gives.

    `feeds` are those of the first: `Preparer.collate`, or `collate_states` where it continues. A whole graph is a path
    of one stage. Raises `KeyError` naming an input that nobody gives.
    """
    known: dict[str, NDArray[Any]] = feeds
    for stage in stages:
        given = stage.run({name: known[name] for name in stage.input_names})
        logits = given.pop(LOGITS)
        yield StageAnswer(logits, next(iter(given.values()), None))
        known = {**feeds, **given}


def run_stages(stages: Sequence[Session], feeds: Feeds) -> StageAnswer:
    """Run at least one stage as `run_each` does; return what the last one gives."""
    return deque(run_each(stages, feeds), maxlen=1).pop()


def cut_states(stage: Session, state: State, sizes: Sequence[int]) -> list[State]:
    """Return each row's part of a state that `stage` gave: views, `sizes[i]` tokens long where rows are padded.

    `sizes` are the rows' own lengths in tokens. A view keeps the state of its whole batch in memory.
    """
    if ATTENTION_MASK not in stage.input_names:
        return list(state)
    return [row[:size] for row, size in zip(state, sizes, strict=True)]


def collate_states(stage: Session, states: Sequence[State]) -> Feeds:
    """Join the states of at least one row, from any batches, into the feeds of a stage that continues from there.

    States of text are float32 [t, d], each as long as its row; shorter ones are padded with zeros to the longest.
    """
    hidden = next(name for name in stage.input_names if name != ATTENTION_MASK)
    if ATTENTION_MASK not in stage.input_names:
        return {hidden: states[0][np.newaxis] if len(states) == 1 else np.stack(states)}
    sizes = [len(state) for state in states]
    mask = np.ones((len(states), max(sizes)), dtype=np.int64)
    if min(sizes) == max(sizes):
        return {hidden: states[0][np.newaxis] if len(states) == 1 else np.stack(states), ATTENTION_MASK: mask}
    joined = np.zeros((len(states), max(sizes), states[0].shape[1]), dtype=np.float32)
    for row, (state, size) in enumerate(zip(states, sizes, strict=True)):
        joined[row, :size] = state
        mask[row, size:] = 0
    return {hidden: joined, ATTENTION_MASK: mask}
