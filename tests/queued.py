"""Queues on paper: a family of three variants with round latencies, and what a policy sees of rows that wait."""

from __future__ import annotations

import numpy as np

from router.backlog import LaneKey
from router.demand import Demand
from router.family import Evidence, Family, VariantProfile
from router.latency import LatencyModel, table
from router.request import NEVER, Item, Request
from router.view import Decision, Lane, View

FAMILY = Family(
    "f",
    (
        VariantProfile("small", 0.60, table((1, 8), (0.002, 0.009)), ("a",)),
        VariantProfile("middle", 0.75, table((1, 8), (0.005, 0.026)), ("a", "b")),
        VariantProfile("large", 0.90, table((1, 8), (0.010, 0.045)), ("whole",)),
    ),
    max_batch=8,
    evidence=Evidence(
        # The ten rows of which `small` is surest it has right, of the others `large` has eight.
        np.arange(20) < np.array([[12], [15], [18]]),
        np.tile(np.linspace(0.98, 0.41, 20, dtype=np.float32), (3, 1)),
    ),
)
"""Milliseconds of a batch of b: 1 + b, 2 + 3 b, 5 + 5 b."""


SIZED = Family(
    "s",
    (
        VariantProfile("quick", 0.6, table((1, 8), (0.001, 0.008), (0.002, 0.016))),
        VariantProfile("exact", 0.9, table((1, 8), (0.004, 0.032), (0.008, 0.064))),
    ),
    sizes=(16, 32),
    max_batch=8,
)
"""A row of `quick` takes 1 or 2 ms by its size, one of `exact` 4 or 8."""


def lane(slacks_s: list[float], slo_s: float = 0.1, pinned: int = -1, lowest: int = 0, at: int = -1) -> Lane:
    """Rows with so much time left at 0.0, which came an SLO before their deadlines."""
    key = LaneKey("f", pinned, lowest, 0, 0, False, at)
    items = tuple(
        Item(0, slack_s, number, number, 0, 0, lowest, 0.0, slo_s, at, 0.5 if at >= 0 else 0.0)
        for number, slack_s in enumerate(sorted(slacks_s))
    )
    return Lane(key, FAMILY, LatencyModel(FAMILY, 1.0), len(items), items, items[-1].deadline_s)


def sized(slacks_s: list[float], size_class: int = 0, lowest: int = 0, hidden: int = 0, slo_s: float = 0.1) -> Lane:
    """Rows with so much time left at 0.0; the last `hidden` are beyond the look-ahead."""
    items = tuple(
        Item(0, slack_s, number, number, 0, size_class, lowest, 0.0, slo_s)
        for number, slack_s in enumerate(sorted(slacks_s))
    )
    seen = items[: len(items) - hidden]
    key = LaneKey("s", -1, lowest, size_class, 0, False)
    return Lane(key, SIZED, LatencyModel(SIZED, 1.0), len(items), seen, items[-1].deadline_s)


def view(*lanes: Lane, kept: tuple[Lane, ...] = (), demand: Demand | None = None, slots: int = 1) -> View:
    """All slots are free; kept answers go out 2 ms before the deadline."""
    return View(tuple(range(slots)), (), lanes, (), None, kept, demand or Demand(), 0.002)


def demand(rows: int, slo_s: float = 0.1) -> Demand:
    """So many rows that came at once, at 0.0."""
    counted = Demand()
    for number in range(rows):
        counted.observe(Request(number, "f", (0,), 0.0, slo_s, NEVER), 0, 0.0)
    return counted


def chosen(decision: Decision) -> tuple[str, int]:
    """The variant and the number of rows of the batch."""
    assert decision.plan is not None
    return FAMILY.variants[decision.plan.variant].name, len(decision.plan.items)
