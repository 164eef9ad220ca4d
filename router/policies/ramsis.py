"""RAMSIS: a Markov decision process of one worker, solved per rate, says which variant the whole queue gets.

Source: RAMSIS (EuroSys 2024) and its released code. State: number of rows queued and the head's slack, in bins. Action:
a variant, which serves the whole queue as one batch. Reward: the variant's accuracy for each row where the head is on
time, else nothing. Value iteration per rate gives a table that is looked up online.

Left open there, chosen here:

- arrivals are Poisson; the head of a queue of k rows that came during a batch of T seconds waited T * k / (k + 1), the
  mean of the first of k uniform arrivals; an empty queue waits for the next arrival and starts with the whole SLO;
- reward is discounted by exp(-t / (5 SLO)), so that long batches pay for their time; at most 400 sweeps, fewer where
  the choices have stood still for 20;
- queues are counted up to the largest batch; what is above stays for the next batch;
- rates in steps of a fifth, SLOs in steps of a quarter (the lower), latencies as they are believed now; several slots
  share the rate and the queue evenly, other families by what they cost (`windows.Windows.per_slot`);
- a table takes some 10 ms, at the first decision that needs it;
- with early drop, where the whole queue would be too late for the head on the chosen variant, the batch is cut to what
  is in time, on the best cheaper variant that can; without, the whole queue runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.policies.batching import batch, chosen, in_time, next_turn
from router.policies.queueing import poisson
from router.policies.tables import RateTables, pace, slo_of, slo_step
from router.policies.windows import rate_of, rate_step
from router.triage import allowed
from router.view import Decision, Lane, Plan, View
from router.words import Reason

Floats = NDArray[np.float64]
Choices = NDArray[np.int64]

SWEEPS = 400
SETTLED_SWEEPS = 20
MEMORY_SLOS = 5.0


@dataclass(frozen=True, slots=True)
class Ramsis:
    """`window_s` is how long the rate is measured, `bins` cut the slack."""

    window_s: float = 0.5
    bins: int = 32
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        known: RateTables[Choices] = state if isinstance(state, RateTables) else RateTables(self.window_s)
        known.windows.roll(view, now)
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return known, turn
        lane = turn.lane
        head, family = lane.items[0], lane.family
        slack_s = head.deadline_s - now
        rows = min(
            int(-(-lane.depth // (len(view.free_slots) + sum(view.idle, 0.0)))), len(lane.items), family.max_batch
        )
        variant = self._lookup(known, view, lane, rows, slack_s)
        if self.early_drop and lane.latency.planned_s(variant, rows, head.size_class) > slack_s:
            variant = in_time(lane, variant, now)
            return known, Decision((), batch(view, lane, variant, now, Reason.OVERLOAD, rows), turn.wake_at)
        plan = Plan(view.free_slots[0], lane, variant, lane.items[:rows], chosen(lane, variant, Reason.BEST_VALUE))
        return known, Decision((), plan, turn.wake_at)

    def _lookup(self, known: RateTables[Choices], view: View, lane: Lane, rows: int, slack_s: float) -> int:
        rungs, latency, size_class = allowed(lane), lane.latency, lane.key.size_class
        if len(rungs) == 1:
            return rungs[0]
        # Every second step of a tenth: about a fifth.
        step = -(-rate_step(known.windows.per_slot(view, lane)) // 2) * 2
        slo_s = slo_of(slo := slo_step(lane.items[0].slo_s))
        key = (lane.key.family, lane.family.revision, size_class, lane.key.lowest, slo, step, pace(lane))

        def make() -> Choices:
            sizes = range(1, lane.family.max_batch + 1)
            seconds = np.array([[latency.planned_s(rung, size, size_class) for size in sizes] for rung in rungs])
            quality = np.array([lane.family.variants[rung].quality for rung in rungs])
            return choices(seconds, quality, rate_of(step), slo_s, self.bins)

        table = known.tables.get(key, make)
        at = min(self.bins, max(0, int(slack_s / slo_s * self.bins)))
        return rungs[int(table[rows - 1, at])]


def choices(seconds: Floats, quality: Floats, rate_per_s: float, slo_s: float, bins: int) -> Choices:
    """Which variant to use, int64 [n, bins + 1] for 1..n rows queued and the head's slack in steps of SLO / bins.

    `seconds` [v, n] of each variant and batch, `quality` [v].
    """
    most = seconds.shape[1]
    chances = poisson(rate_per_s * seconds, most)
    queued = np.arange(1, most + 1)
    waited_s = seconds[..., None] * queued / (queued + 1.0)
    slack = np.clip(((1.0 - waited_s / slo_s) * bins).astype(np.int64), 0, bins)
    memory_s = MEMORY_SLOS * slo_s
    keep = np.exp(-seconds / memory_s)
    arrival_keep = 1.0 / (1.0 + 1.0 / (rate_per_s * memory_s))
    left_s = np.arange(bins + 1) * slo_s / bins
    reward = np.where(seconds[..., None] <= left_s * (1.0 + 1e-9), (quality[:, None] * queued)[..., None], 0.0)
    value = np.zeros((most, bins + 1))
    best = np.zeros((most, bins + 1), np.int64)
    stood_still = 0
    for _ in range(SWEEPS):
        following = (chances[..., 1:] * value[queued - 1, slack]).sum(axis=-1)
        following += chances[..., 0] * arrival_keep * value[0, bins]
        worth = reward + (keep * following)[..., None]
        found = worth.argmax(axis=0)
        value = np.take_along_axis(worth, found[None], axis=0)[0]
        stood_still = stood_still + 1 if (found == best).all() else 0
        best = found
        if stood_still == SETTLED_SWEEPS:
            break
    return best
