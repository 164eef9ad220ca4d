"""Model-Switching: for each rate the most accurate variant that, serving everything, is late for hardly anyone.

Source: Model-Switching (Zhang et al., HotCloud 2020), in the form in which RAMSIS (EuroSys 2024) compares with it:
offline, for each rate, the most accurate static variant whose simulated violations stay under 1 %; online, the rate of
the last half second is looked up. Where no variant does, the cheapest.

Left open there, chosen here:

- the simulation is `queueing.late_share` for Poisson arrivals on one slot, with batches of at most the SLO; several
  slots share the rate evenly, other families by what they cost (`windows.Windows.per_slot`);
- rates in steps of a tenth, SLOs in steps of a quarter (the lower), latencies as they are believed now;
- earliest deadline first, the largest batch that the head has the slack for;
- with early drop, a head that the variant cannot answer in time gets the best cheaper one that can; without, that
  variant all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from router.policies.batching import batch, in_time, next_turn
from router.policies.queueing import late_share
from router.policies.tables import RateTables, pace, slo_of, slo_step
from router.policies.windows import rate_of, rate_step
from router.triage import allowed
from router.view import Decision, Lane, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class ModelSwitching:
    """`window_s` is how long the rate is measured, `late_share` the violations that a variant may have."""

    window_s: float = 0.5
    late_share: float = 0.01
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        known: RateTables[int] = state if isinstance(state, RateTables) else RateTables(self.window_s)
        known.windows.roll(view, now)
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return known, turn
        lane = turn.lane
        variant = self._variant(known, view, lane)
        if self.early_drop:
            variant = in_time(lane, variant, now)
        return known, Decision((), batch(view, lane, variant, now, Reason.BEST_VALUE), turn.wake_at)

    def _variant(self, known: RateTables[int], view: View, lane: Lane) -> int:
        if lane.key.pinned >= 0:
            return lane.key.pinned
        step = rate_step(known.windows.per_slot(view, lane))
        slo = slo_step(lane.items[0].slo_s)
        key = (lane.key.family, lane.family.revision, lane.key.size_class, lane.key.lowest, slo, step, pace(lane))
        return known.tables.get(key, lambda: self.static_choice(lane, rate_of(step), slo_of(slo)))

    def static_choice(self, lane: Lane, rate_per_s: float, slo_s: float) -> int:
        """The variant for that many rows per second on one slot."""
        latency, size_class, rungs = lane.latency, lane.key.size_class, allowed(lane)
        for rung in reversed(rungs[1:]):
            largest = latency.largest_batch_within(rung, size_class, slo_s, lane.family.max_batch)
            seconds = [latency.planned_s(rung, rows, size_class) for rows in range(1, largest + 1)]
            if largest and late_share(np.array(seconds), rate_per_s, slo_s) <= self.late_share:
                return rung
        return rungs[0]
