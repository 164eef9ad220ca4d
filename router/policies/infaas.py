"""INFaaS: the slowest variant that meets the SLO on paper, unless it is overloaded.

Source: INFaaS (Romero et al., ATC 2021) and its released code. Of the variants with enough accuracy whose latency is
within the SLO and which are not blacklisted, the slowest answers. A variant is blacklisted when its average latency is
above 2.5 times the theoretical one at more than half of its theoretical rate, or when its backlog is above 0.8 s; it is
lifted below 1.5 times. Where all are blacklisted, the cheapest (INFaaS would start another machine).

Left open there, or different here where all variants share the slots:

- latency on paper is that of a batch of one; a variant's theoretical rate is that of its largest batch within the SLO;
- a variant's latency is how long the head has waited plus its own batch; blacklisted ones are followed in the same way,
  or none would ever be lifted; the average fades with a time constant of `average_s`;
- the rate is that of everything on one slot (`windows.Windows.per_slot`), the backlog that of all rows of the lane;
- earliest deadline first, the largest batch that the head has the slack for; with early drop, a head that the variant
  cannot answer in time gets the best cheaper one that can; without, that variant all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from router.policies.batching import batch, in_time, next_turn
from router.policies.windows import Windows
from router.triage import allowed
from router.view import Decision, Lane, View
from router.words import Reason


class _Load:
    """What is known of one variant: its average latency over the theoretical one, and whether it is blacklisted."""

    __slots__ = ("average", "blacklisted", "seen_s")

    def __init__(self, now: float) -> None:
        self.average = 1.0
        self.seen_s = now
        self.blacklisted = False


class _State:
    __slots__ = ("loads", "windows")

    def __init__(self, window_s: float) -> None:
        self.windows = Windows(window_s)
        self.loads: dict[tuple[str, int, int], _Load] = {}


@dataclass(frozen=True, slots=True)
class Infaas:
    """`enter` and `leave` bound the ratio of latencies, `busy` that of rates, `backlog_s` the work that waits."""

    enter: float = 2.5
    leave: float = 1.5
    busy: float = 0.5
    backlog_s: float = 0.8
    window_s: float = 0.5
    average_s: float = 0.5
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        known = state if isinstance(state, _State) else _State(self.window_s)
        known.windows.roll(view, now)
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return known, turn
        lane = turn.lane
        variant = self._slowest(known, view, lane, now)
        if self.early_drop:
            variant = in_time(lane, variant, now)
        return known, Decision((), batch(view, lane, variant, now, Reason.FITS_SLACK), turn.wake_at)

    def _slowest(self, known: _State, view: View, lane: Lane, now: float) -> int:
        head, latency = lane.items[0], lane.latency
        rate = known.windows.per_slot(view, lane)
        rungs = allowed(lane)
        found = rungs[0]
        for rung in rungs:
            load = self._follow(known, view, lane, rung, rate, now)
            if not load.blacklisted and latency.planned_s(rung, 1, head.size_class) <= head.slo_s:
                found = rung
        return found

    def _follow(self, known: _State, view: View, lane: Lane, rung: int, rate: float, now: float) -> _Load:
        head, latency, slots = lane.items[0], lane.latency, view.slots
        key = (lane.key.family, lane.key.size_class, rung)
        load = known.loads.get(key)
        if load is None:
            load = known.loads[key] = _Load(now)
        one_s = latency.planned_s(rung, 1, head.size_class)
        rows = max(1, latency.largest_batch_within(rung, head.size_class, head.deadline_s - now, len(lane.items)))
        waited_s = now - (head.deadline_s - head.slo_s)
        ratio = (waited_s + latency.planned_s(rung, rows, head.size_class)) / one_s
        # Asked ahead, a rule may be asked again at an earlier moment.
        load.average += -math.expm1(min(0.0, load.seen_s - now) / self.average_s) * (ratio - load.average)
        load.seen_s = max(load.seen_s, now)
        full = max(1, latency.largest_batch_within(rung, head.size_class, head.slo_s, lane.family.max_batch))
        busy = rate > self.busy * full / latency.planned_s(rung, full, head.size_class)
        backlog = latency.clearing_s(rung, lane.depth, head.size_class) / slots > self.backlog_s
        if (load.average > self.enter and busy) or backlog:
            load.blacklisted = True
        elif load.average < self.leave:
            load.blacklisted = False
        return load
