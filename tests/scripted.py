"""A family that exists on paper only: a quick variant and a slow one, and what each answers on four samples."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from loadtests.samples import Samples
from router.family import Evidence, Family, VariantProfile
from router.latency import LatencyModel, table
from router.policies.batching import background, earliest
from router.request import NEVER, Item
from router.triage import triage
from router.view import Decision, Lane, Plan, View
from router.words import Reason

SAMPLES = Samples(
    family="scripted",
    labels=("negative", "positive"),
    inputs={},
    datatypes={},
    label=np.array([0, 1, 0, 1]),
    size_class=np.array([0, 0, 1, 1]),
    predicted={"small": np.array([0, 1, 0, 0]), "large": np.array([0, 1, 0, 1])},
    confidence={
        "small": np.array([0.9, 0.8, 0.6, 0.55], np.float32),
        "large": np.array([0.95, 0.95, 0.9, 0.9], np.float32),
    },
)


def _evidence(copies: int = 50) -> Evidence:
    """What both variants answer on the samples, many times over: enough rows to learn from."""
    names = ("small", "large")
    correct = np.stack([SAMPLES.predicted[name] == SAMPLES.label for name in names])
    confidence = np.stack([SAMPLES.confidence[name] for name in names])
    return Evidence(np.tile(correct, copies), np.tile(confidence, copies))


FAMILY = Family(
    "scripted",
    (
        VariantProfile("small", 0.75, table((1, 8), (0.001, 0.006), (0.002, 0.012))),
        VariantProfile("large", 1.00, table((1, 8), (0.008, 0.060), (0.016, 0.120))),
    ),
    sizes=(16, 64),
    max_batch=8,
    evidence=_evidence(),
)
STAGED = replace(
    FAMILY,
    variants=(replace(FAMILY.variants[0], stages=("0",)), replace(FAMILY.variants[1], stages=("0", "1"))),
)
"""The same as exits of one network: the slow variant goes on from the quick one's state."""


@dataclass(frozen=True, slots=True)
class TwoSteps:
    """A rule as simple as cascades get: the cheapest variant, and the best one after it where that was unsure.

    One row at a time, fresh ones first; answers under `threshold` are kept for as long as the best variant fits.
    """

    threshold: float = 0.7

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        lanes, late, wake_at = triage(view.lanes, now)
        settled = []
        for lane in view.kept:
            for item in lane.items:
                latest_s = self._latest_start_s(lane, item, view.reply_margin_s)
                if latest_s <= now:
                    settled.append((lane, item))
                wake_at = min(wake_at, latest_s if latest_s > now else NEVER)
        if late or settled or not view.free_slots:
            return state, Decision(late, None, wake_at, tuple(settled))
        fresh, kept = earliest(lanes), earliest(view.kept)
        if fresh is not None:
            plan = Plan(view.free_slots[0], fresh, fresh.key.lowest, fresh.items[:1], Reason.FIXED)
        elif kept is not None:
            plan = Plan(view.free_slots[0], kept, kept.family.ladder[-1], kept.items[:1], Reason.ESCALATED)
        else:
            return state, Decision((), background(view, now), wake_at)
        return state, Decision((), plan, wake_at)

    def keeps(self, state: object, family: Family, latency: LatencyModel, item: Item, now: float) -> bool:
        """See `router.view.CascadePolicy`."""
        return item.confidence < self.threshold

    def _latest_start_s(self, lane: Lane, item: Item, reply_margin_s: float) -> float:
        best = lane.family.ladder[-1]
        needed_s = lane.latency.planned_s(best, 1, item.size_class, lane.family.start(item.at, best))
        return item.deadline_s - reply_margin_s - needed_s
