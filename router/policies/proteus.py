"""Proteus: every period, rates are assigned to variants; each variant waits for the fullest batch that is in time.

Source: Proteus (Ahmad et al., ASPLOS 2024) and its released code. A linear program, every 10 to 30 s, maximises the
accuracy of all rows within the machine: demand is an exponential average with 1.05 headroom, and a row of a variant
costs what it does in the largest batch within half of the SLO. Each variant batches by AccScale: with q rows queued it
waits until the head has just the slack for q + 1 (or until a batch is full); where the newest row would break the head,
it is left for the next batch.

Left open there, or different here where all variants are loaded and share all slots:

- a slot may be shared by variants, so the program is linear: a multiple-choice knapsack, whose relaxation the greedy
  over the upper hulls of (seconds, quality) solves exactly, for any number of families (Sinha and Zoltners, 1979);
- where even the cheapest variants cannot do it, they do all;
- the period is a quarter of a second: solving takes microseconds here, and short periods came out best in our routing
  study; the plan is not remade in between;
- the average of demand moves half of the way in each period;
- rows are routed in whole batches: the variant runs next whose share of its family's rows is furthest behind;
- lanes are looked at by their heads' deadlines, and one that waits lets others run; no background work while one waits;
- early drop also drops heads that are too tight for an economical batch in overload. It asks whether the cheapest
  variant can answer in time; a head that the routed variant cannot is given the best cheaper one that can. Without it
  the routed variant runs all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from router.family import Family
from router.latency import LatencyModel
from router.policies.batching import batch, in_time, next_turn
from router.policies.windows import Kind, Measured, Windows
from router.request import NEVER
from router.triage import allowed
from router.view import Decision, Lane, Plan, View
from router.words import Reason

MEMORY = 0.5
ROUNDING = 1.0 + 1e-9
"""Rows run at the moment for which they waited: a deadline must not be lost to rounding."""


class Segment(NamedTuple):
    """A step of a kind's hull: going on to `variant` costs `work` slots and gains `slope` of quality per second."""

    kind: Kind
    variant: int
    work: float
    slope: float


class Routes:
    """The shares of one kind's rows by variant, and the rows that each has had since they were made."""

    __slots__ = ("had", "shares")

    def __init__(self, shares: dict[int, float]) -> None:
        self.shares = shares
        self.had = dict.fromkeys(shares, 0)

    def next(self) -> int:
        """The variant that is furthest behind."""
        total = sum(self.had.values()) + 1
        return max(self.shares, key=lambda variant: self.shares[variant] * total - self.had[variant])


class _State:
    __slots__ = ("demand", "routes", "windows")

    def __init__(self, period_s: float) -> None:
        self.windows = Windows(period_s)
        self.demand: dict[Kind, float] = {}
        self.routes: dict[Kind, Routes] = {}


@dataclass(frozen=True, slots=True)
class Proteus:
    """`period_s` is how often rates are assigned, `headroom` what is planned for over what was measured."""

    period_s: float = 0.25
    headroom: float = 1.05
    early_drop: bool = True

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        known = state if isinstance(state, _State) else _State(self.period_s)
        if known.windows.roll(view, now):
            self._assign(known, view.slots)
        turn = next_turn(view, now, early_drop=self.early_drop)
        if isinstance(turn, Decision):
            return known, turn
        wake_at = turn.wake_at
        for lane in sorted(turn.lanes, key=lambda lane: lane.items[0]):
            plan, start_s = self._batch(known, view, lane, now)
            if plan is not None:
                return known, Decision((), plan, wake_at)
            wake_at = min(wake_at, start_s)
        return known, Decision((), None, wake_at)

    def _batch(self, known: _State, view: View, lane: Lane, now: float) -> tuple[Plan | None, float]:
        """AccScale: the batch to run now, or when to."""
        head, latency, kind = lane.items[0], lane.latency, Kind(lane.key.family, lane.key.size_class)
        routes = known.routes.get(kind)
        variant = allowed(lane)[0] if routes is None or lane.key.pinned >= 0 else max(routes.next(), lane.key.lowest)
        routed = variant
        if self.early_drop:
            variant = in_time(lane, variant, now)
        full = latency.largest_batch_within(variant, head.size_class, head.slo_s / 2, lane.family.max_batch)
        rows = min(lane.depth, max(1, full))
        if rows < full:
            start_s = head.deadline_s - latency.planned_s(variant, rows + 1, head.size_class) * ROUNDING
            if start_s > now:
                return None, start_s
        plan = batch(view, lane, variant, now, Reason.BEST_VALUE, rows)
        if routes is not None and routed in routes.had:
            routes.had[routed] += len(plan.items)
        return plan, NEVER

    def _assign(self, known: _State, slots: float) -> None:
        work = 0.0
        segments: list[Segment] = []
        known.routes = {}
        for kind, measured in known.windows.measured.items():
            model = known.windows.model(kind.family)
            rate = known.demand.get(kind, measured.rate_per_s)
            known.demand[kind] = rate = rate + MEMORY * (measured.rate_per_s - rate)
            if model is not None:
                costs = row_costs(*model, kind, measured)
                first, steps = hull(model[0], kind, costs, self.headroom * rate)
                work += self.headroom * rate * costs[first]
                segments += steps
                known.routes[kind] = Routes({first: 1.0})
        assign(segments, slots - work, known.routes)


def row_costs(family: Family, latency: LatencyModel, kind: Kind, measured: Measured) -> dict[int, float]:
    """Planned seconds per row of each rung in its largest batch within half of the SLO; the cheapest rung always."""
    costs: dict[int, float] = {}
    for rung in family.ladder:
        rows = latency.largest_batch_within(rung, kind.size_class, measured.slo_s / 2, family.max_batch)
        if rows or not costs:
            rows = max(1, rows)
            costs[rung] = latency.planned_s(rung, rows, kind.size_class) / rows
    return costs


def hull(family: Family, kind: Kind, costs: dict[int, float], rate: float) -> tuple[int, list[Segment]]:
    """The rung whose rows cost least, and the steps of the upper hull over (seconds, quality) from there."""
    quality = {rung: family.variants[rung].quality for rung in costs}
    first = at = min(costs, key=lambda rung: (costs[rung], -quality[rung]))
    steps: list[Segment] = []
    while True:
        slopes = {
            rung: (quality[rung] - quality[at]) / (costs[rung] - costs[at])
            for rung in costs
            if costs[rung] > costs[at] and quality[rung] > quality[at]
        }
        if not slopes:
            return first, steps
        best = max(slopes, key=lambda rung: slopes[rung])
        steps.append(Segment(kind, best, rate * (costs[best] - costs[at]), slopes[best]))
        at = best


def assign(segments: list[Segment], spare: float, routes: dict[Kind, Routes]) -> None:
    """Fill the spare slots with the steps that gain most for their seconds; the last one in part."""
    for segment in sorted(segments, key=lambda segment: -segment.slope):
        if spare <= 0.0:
            return
        if segment.work > spare:
            # A step starts where the one before it ended, so the whole kind is on one variant until now.
            (before,) = routes[segment.kind].shares
            part = spare / segment.work
            routes[segment.kind] = Routes({before: 1.0 - part, segment.variant: part})
            return
        spare -= segment.work
        routes[segment.kind] = Routes({segment.variant: 1.0})
