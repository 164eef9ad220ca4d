"""MaxBatch and MaxAcc: the two greedy rules beside SlackFit, one for throughput first, one for accuracy first.

Source: SuperServe (Khare et al., NSDI 2025), section 4. Both: earliest deadline first, and what is chosen is planned
within the head's slack. MaxBatch takes the largest batch that the cheapest variant can do, then the most accurate
variant that can do as many. MaxAcc takes the most accurate variant that can do one row, then its largest batch.

Left open there, chosen here: a batch is never larger than what is queued (the two differ little where it may be), and
a head that nothing can answer in time runs alone on the cheapest variant.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.policies.batching import batch, in_time, next_turn
from router.triage import allowed
from router.view import Decision, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class MaxBatch:
    """Batch first, then accuracy."""

    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return state, turn
        lane = turn.lane
        head, latency, rungs = lane.items[0], lane.latency, allowed(lane)
        slack_s = head.deadline_s - now
        rows = latency.largest_batch_within(rungs[0], head.size_class, slack_s, len(lane.items))
        as_many = (rung for rung in reversed(rungs) if latency.planned_s(rung, rows, head.size_class) <= slack_s)
        variant = next(as_many, rungs[0]) if rows else rungs[0]
        return state, Decision((), batch(view, lane, variant, now, Reason.FITS_SLACK, max(1, rows)), turn.wake_at)


@dataclass(frozen=True, slots=True)
class MaxAcc:
    """Accuracy first, then batch."""

    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return state, turn
        variant = in_time(turn.lane, allowed(turn.lane)[-1], now)
        return state, Decision((), batch(view, turn.lane, variant, now, Reason.FITS_SLACK), turn.wake_at)
