"""What the metrics add up between two scrapes: histogram series in plain Python, and the sums of one variant."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

LATENCY_EDGES = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds. Five edges under 5 ms; an edge is added at every configured SLO."""
RATIO_EDGES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 5.0)
"""Latency / SLO: dense around 1."""
PREDICTION_EDGES = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 3.0, 5.0)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Sums:
    """One histogram series: counts per bucket and the sum."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper edge, as the exposition format wants them."""
        names = [*(f"{float(edge)}" for edge in self.edges), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Answered:
    """What is added up per (family, variant)."""

    __slots__ = ("compute", "latency", "met", "quality", "queue", "ratio")

    def __init__(self, latency_edges: Sequence[float]) -> None:
        self.latency = Sums(latency_edges)
        self.ratio = Sums(RATIO_EDGES)
        self.queue = Sums(latency_edges)
        self.compute = Sums(latency_edges)
        self.met = 0
        self.quality = 0.0


class Batches:
    """What is added up per (family, variant) for batches."""

    __slots__ = ("prediction", "rows", "size")

    def __init__(self) -> None:
        self.size = Sums(BATCH_EDGES)
        self.prediction = Sums(PREDICTION_EDGES)
        self.rows = 0


class FirstAnswers:
    """What is added up per (family, variant that answered first, escalation)."""

    __slots__ = ("confidence", "count")

    def __init__(self) -> None:
        self.count = 0
        self.confidence = 0.0
