"""Jellyfish: the most accurate variant that keeps up with the rate in batches of half the SLO.

Source: Jellyfish (Nigade et al., RTSS 2022), in the form in which RAMSIS (EuroSys 2024) compares with it: the most
accurate variant that has a batch size b with b / l(b) >= 1.05 times the rate and l(b) <= SLO / 2; else the cheapest.

Left open there, chosen here:

- the rate is that of the last half second; several slots share it evenly, other families by what they cost
  (`windows.Windows.per_slot`);
- b is the largest batch within half of the SLO, which is also the largest that runs; below it, the largest that the
  head has the slack for;
- with early drop, a head that the variant cannot answer in time gets the best cheaper one that can; without, that
  variant all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.policies.batching import batch, in_time, next_turn
from router.policies.windows import Windows
from router.triage import allowed
from router.view import Decision, Lane, View
from router.words import Reason


@dataclass(frozen=True, slots=True)
class Jellyfish:
    """`window_s` is how long the rate is measured, `headroom` what is planned for over what was measured."""

    window_s: float = 0.5
    headroom: float = 1.05
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        windows = state if isinstance(state, Windows) else Windows(self.window_s)
        windows.roll(view, now)
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return windows, turn
        lane = turn.lane
        variant, largest = self.choice(lane, windows.per_slot(view, lane))
        if self.early_drop:
            reachable = in_time(lane, variant, now)
            if reachable != variant:
                variant, largest = reachable, max(1, self._largest(lane, reachable))
        return windows, Decision((), batch(view, lane, variant, now, Reason.BEST_VALUE, largest), turn.wake_at)

    def choice(self, lane: Lane, rate_per_s: float) -> tuple[int, int]:
        """The variant for that many rows per second on one slot, and its largest batch."""
        rungs = allowed(lane)
        for rung in reversed(rungs):
            rows = self._largest(lane, rung)
            if rows and rows >= self.headroom * rate_per_s * lane.latency.planned_s(rung, rows, lane.key.size_class):
                return rung, rows
        return rungs[0], max(1, self._largest(lane, rungs[0]))

    def _largest(self, lane: Lane, variant: int) -> int:
        half_s = lane.items[0].slo_s / 2
        return lane.latency.largest_batch_within(variant, lane.key.size_class, half_s, lane.family.max_batch)
