"""SlackFit: the head's slack names a latency bucket, the bucket a variant and a batch size.

Source: SuperServe (Khare et al., NSDI 2025), section 4. Earliest deadline first. The latencies from the cheapest
variant at batch 1 to the dearest at batch 16 are cut into evenly spaced buckets; each keeps the (variant, batch) with
the largest batch among those whose latency lies in it; the bucket closest below the head's slack is taken. Much slack
(little load) so leads to accurate variants, little slack to large batches on cheap ones.

Left open there, chosen here:

- number of buckets: 20, the best in our routing study; with few it becomes MaxBatch;
- of two variants with the same batch in a bucket, the more accurate;
- an empty bucket stands for the one below;
- a slack below the first bucket's end: the largest batch of the cheapest variant that fits, of one row at least;
- fewer rows queued than the batch: those that there are, on the bucket's variant;
- latencies are the corrected ones, so buckets are looked through at each decision instead of being kept in a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.policies.batching import batch, next_turn
from router.triage import allowed
from router.view import Decision, Lane, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class SlackFit:
    """`buckets` cut the range of latencies, `most_rows` is the batch at its upper end."""

    buckets: int = 20
    most_rows: int = 16
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return state, turn
        lane = turn.lane
        variant, rows = self._bucket(lane, lane.items[0].deadline_s - now)
        return state, Decision((), batch(view, lane, variant, now, Reason.FITS_SLACK, rows), turn.wake_at)

    def _bucket(self, lane: Lane, slack_s: float) -> tuple[int, int]:
        """Variant and batch size for that slack."""
        latency, size_class, rungs = lane.latency, lane.key.size_class, allowed(lane)
        most = min(self.most_rows, lane.family.max_batch)
        least_s = latency.planned_s(rungs[0], 1, size_class)
        width_s = (latency.planned_s(rungs[-1], most, size_class) - least_s) / self.buckets
        bucket = min(self.buckets, int((slack_s - least_s) / width_s)) if width_s > 0.0 else 0
        for end in range(bucket, 0, -1):
            # A hair more than the end, which must not be lost to rounding: the last bucket ends at a latency.
            end_s = min(slack_s, (least_s + end * width_s) * (1.0 + 1e-9))
            rows, variant = 0, rungs[0]
            for rung in rungs:
                fitting = latency.largest_batch_within(rung, size_class, end_s, most)
                in_bucket = fitting and latency.planned_s(rung, fitting, size_class) >= least_s + (end - 1) * width_s
                if in_bucket and fitting >= rows:
                    rows, variant = fitting, rung
            if rows:
                return variant, rows
        return rungs[0], most
