"""Seconds of every batch, from those of the few that were measured."""

from __future__ import annotations

ECONOMY = 0.95
"""A larger batch is worth waiting for only if it costs at most this share per row of what the smaller one does."""


def dense(batches: tuple[int, ...], seconds: tuple[float, ...], max_batch: int) -> tuple[float, ...]:
    """Seconds for each batch 0..max_batch: linear between measured batches, the last slope continued beyond them."""
    points = [(0, 0.0), *zip(batches, seconds, strict=True)]
    every = [0.0]
    for batch in range(1, max_batch + 1):
        right = next((i for i, (b, _) in enumerate(points) if b >= batch and i > 0), len(points) - 1)
        (b0, s0), (b1, s1) = points[right - 1], points[right]
        every.append(max(every[-1], s0 + (s1 - s0) * (batch - b0) / (b1 - b0)))
    return tuple(every)


def economical(dense: tuple[float, ...]) -> int:
    """The smallest batch beyond which doubling no longer makes a row noticeably cheaper."""
    batch = 1
    while batch * 2 < len(dense) and dense[batch * 2] / (batch * 2) <= ECONOMY * dense[batch] / batch:
        batch *= 2
    return batch
