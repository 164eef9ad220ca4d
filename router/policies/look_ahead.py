"""Look-ahead: each batch is weighed against what its time would be worth to everybody else.

Source: our routing study (fluid look-ahead, cascades as operating points, staged exits). In order:

1. Rows that even the cheapest allowed variant cannot answer in time are late. Kept answers that no better variant can
   replace in time go out.
2. The fluid look-ahead (`router.fluid`) finds the horizon with the least time per row, over the queue and expected
   arrivals, the value of time up to it and after it, and the price of time.
3. The lane with the earliest deadline runs next. Of all (variant, batch) of its first rows that leave everybody behind
   them feasible, the one runs that adds most to the sum of its own quality and the value of the time that is left.
4. Where nothing leaves everybody feasible with time to spare: `SlackFraction` without its early drop, for some
   milliseconds.
5. Where there is no time to spare even with everything at its cheapest: as 3 with hardly a reserve, and heads too tight
   for the best batch are late (a reserve would call bursts hopeless that can still be answered).
6. Kept rows whose expected gain is above the price of the time that a better variant takes compete with 3 as a batch of
   their own; they never make a fresh row late.

For some milliseconds after a look that found time for nothing but cheapest answers, `SlackFraction` decides; within
some milliseconds of another look, fresh rows are decided on by a glance (`router.glance`), at the last look's price.
Where batches take hardly longer than this rule itself, `SlackFraction` decides: thought would cost more than it saves.
In the study that was where a decision costs more than 0.6 of the smallest latency of a family whose latencies span 1 to
10; many families span more, so the smallest counts as no less than a tenth of the largest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

import numpy as np

from router.contract import NEVER, Family, Item, Reason
from router.fluid import Budget
from router.glance import checkpoints, feasible, least_loss
from router.latency import LatencyModel
from router.memory import Memory
from router.outlook import Outlook, kind_of
from router.policies.batching import background, best_rung, earliest, reason_for
from router.policies.slack_fraction import SlackFraction
from router.triage import triage, triage_kept
from router.view import Decision, Lane, Plan, View

RETRY_S = 0.002
"""Kept rows that are not worth their time now may be a little later, when the demand has faded."""
MOST_LANES = 32
"""Lanes that are looked at, those with the most urgent heads; the cost of a look must not be the callers' to choose."""
USUAL_SLO_S = 0.1
"""Tables are made for this SLO before any request has come."""


@dataclass(frozen=True, slots=True)
class LookAhead:
    """FLUID: the look-ahead without cascades; with `cascades`, the part of CASC that decides on batches.

    `decision_s` is what a decision costs on this machine, seconds. A batch leaves `spare` of the SLO clear before every
    deadline as long as some choice does: for what no profile knows of, the event loop before all. It is overload when
    everything at its cheapest would leave less than `overload` of the SLO; `burst` is the budget then.
    """

    cascades: bool = False
    decision_s: float = 60e-6
    spare: float = 0.2
    overload: float = 0.1
    budget: Budget = field(default_factory=Budget)
    burst: Budget = field(default_factory=lambda: Budget(usable=1.15, reserve=0.6, reserve_share=0.2))
    simple: SlackFraction = field(default_factory=SlackFraction)
    gentle: SlackFraction = field(default_factory=lambda: SlackFraction(early_drop=False))

    def prepare(self, families: Sequence[tuple[Family, LatencyModel]]) -> Memory:
        """See `router.view.PreparedPolicy`."""
        memory = Memory(follow=self.cascades)
        for family, latency in families:
            for size_class in range(len(family.sizes)):
                memory.table(family, latency, size_class, USUAL_SLO_S, -NEVER)
        return memory

    def decide(self, state: object, view: View, now: float) -> tuple[object, Decision]:
        """See `router.view.Policy`."""
        memory = state if isinstance(state, Memory) else Memory(follow=self.cascades)
        lanes, late, wake_at = triage(view.lanes, now)
        if len(lanes) > MOST_LANES:
            lanes = tuple(nsmallest(MOST_LANES, lanes, key=lambda lane: lane.items[0]))
        settled, settle_at = triage_kept(view.kept, now, view.reply_margin_s)
        if len(view.kept) > MOST_LANES:
            view = view._replace(kept=tuple(nsmallest(MOST_LANES, view.kept, key=lambda lane: lane.items[0])))
        wake_at = min(wake_at, settle_at)
        if late or settled or not view.free_slots:
            return memory, Decision(late, None, wake_at, settled)
        lane = earliest(lanes)
        if lane is None and not view.kept:
            return memory, Decision((), background(view, now), wake_at)
        quick = lane is not None and self.is_quick(lane.latency, lane.key.lowest, best_rung(lane), lane.key.size_class)
        if quick or (lane is not None and memory.is_saturated(now)):
            return memory, self._simply(self.simple, view, lanes, wake_at, now)
        if lane is not None and memory.is_tight(now):
            return memory, self._simply(self.gentle, view, lanes, wake_at, now)
        if lane is not None:
            plan, late = self._glance(memory, view, lanes, lane, now)
            if plan is not None:
                return memory, Decision(late, plan, wake_at)
        return memory, self._look(memory, view, lanes, lane, wake_at, now)

    def _look(
        self, memory: Memory, view: View, lanes: tuple[Lane, ...], lane: Lane | None, wake_at: float, now: float
    ) -> Decision:
        """Steps 2 to 6; `lane` has the earliest deadline of the fresh rows, if there are any."""
        outlook = memory.look(view, lanes, self.budget, now)
        plan, worth = None, 0.0
        if lane is not None:
            plan, worth, late = self._fresh(memory, outlook, view, lane, now)
            if plan is None:
                memory.remember_tight(now)
                return self._simply(self.gentle, view, lanes, wake_at, now)
            if late:
                return Decision(late, None, wake_at)
        better = self._better(memory, outlook, view, max(worth, 0.0), now)
        hidden = self._hiding(memory, outlook, view, now)
        if hidden:
            return Decision((), None, wake_at, hidden)
        if better is None and plan is None:
            return Decision((), background(view, now), min(wake_at, now + RETRY_S))
        return Decision((), better or plan, wake_at)

    def _simply(self, rule: SlackFraction, view: View, lanes: tuple[Lane, ...], wake_at: float, now: float) -> Decision:
        decision = rule.decide(None, view._replace(lanes=lanes), now)[1]
        return decision._replace(wake_at=min(wake_at, decision.wake_at))

    def is_quick(self, latency: LatencyModel, lowest: int, best: int, size_class: int) -> bool:
        """Whether rows that variants `lowest` to `best` may answer take hardly longer than this rule."""
        least_s = latency.planned_run_s(lowest, 1, size_class)
        most_s = latency.planned_run_s(best, 1, size_class)
        return 0.6 * max(least_s, 0.1 * most_s) < self.decision_s

    def _glance(
        self, memory: Memory, view: View, lanes: tuple[Lane, ...], lane: Lane, now: float
    ) -> tuple[Plan | None, tuple[tuple[Lane, Item], ...]]:
        """Steps 3 and 5 by the last look, while it is fresh; no plan where a new look is due."""
        ranking = memory.ranking(lane, now)
        if ranking is None:
            return None, ()
        points, own_s = checkpoints(lanes, lane, len(view.free_slots) + len(view.busy_until_s), now)
        most = min(len(lane.items), lane.family.max_batch)
        slip_s = lane.latency.slip_s
        head = lane.items[0]
        slack_s = head.deadline_s - now - slip_s - self.spare * head.slo_s
        spare_s = self.spare * memory.shortest_s
        # Longer batches might doom arrivals, which only a look sees.
        longest_s = min(slack_s, 0.5 * memory.shortest_s)
        for choice in ranking:
            if choice.rows <= most and choice.seconds <= longest_s and feasible(choice, points, own_s, spare_s):
                return self._plan(view, lane, choice.variant, choice.rows, Reason.BEST_VALUE), ()
        if min(point.spare_s for point in points) > self.overload * min(memory.shortest_s, head.slo_s):
            return None, ()
        ranking = memory.ranking(lane, now, burst=True)
        if ranking is None:
            return None, ()
        deadlines = [item.deadline_s for item in lane.items]
        lost = memory.given_up(lane)
        found = least_loss(ranking, lane.key.lowest, deadlines, lost, now + slip_s)
        if found is None:
            return None, ()
        choice, tight = found
        late = tuple((lane, item) for item in lane.items[:tight])
        return self._plan(view, lane, choice.variant, choice.rows, Reason.OVERLOAD), late

    def _fresh(
        self, memory: Memory, outlook: Outlook, view: View, lane: Lane, now: float
    ) -> tuple[Plan | None, float, tuple[tuple[Lane, Item], ...]]:
        """Steps 3 and 5: the batch to run, what it adds, and the rows to give up before it; no plan for step 4."""
        table = memory.table_of(lane, now)
        most = min(len(lane.items), lane.family.max_batch)
        choices = table.choices(kind_of(lane), most, outlook.price / outlook.weight(lane))
        rows = choices.rows
        safe_s = choices.seconds + lane.latency.slip_s
        due_s = outlook.due_s(lane)
        spare_s = self.spare * memory.shortest_s
        in_time = choices.seconds + spare_s <= outlook.latest_start_after(lane, rows)
        fits = in_time & (safe_s + self.spare * lane.items[0].slo_s <= due_s[0])
        if fits.any():
            longest_s = float(choices.seconds[fits].max())
            worth = outlook.gain(lane, choices, rows, outlook.planned, longest_s)
            worth = np.where(fits, worth, -math.inf)
            at = int(worth.argmax())
            variant, size = int(choices.variants[at // len(rows)]), int(rows[at % len(rows)])
            return self._plan(view, lane, variant, size, Reason.BEST_VALUE), float(worth.flat[at]), ()
        if outlook.latest_start_s() > self.overload * min(memory.shortest_s, lane.items[0].slo_s):
            return None, 0.0, ()
        shed = due_s.searchsorted(safe_s)
        gone = shed + rows
        planned = outlook.with_budget(self.burst)
        memory.remember_burst(planned)
        worth = outlook.gain(lane, choices, np.minimum(gone, len(due_s)), planned, float(due_s[-1]))
        worth = np.where(gone <= len(due_s), worth, -math.inf)
        at = int(worth.argmax())
        if worth.flat[at] == -math.inf:
            return self._plan(view, lane, lane.key.lowest, 1, Reason.OVERLOAD), 0.0, ()
        variant, size = int(choices.variants[at // len(rows)]), int(rows[at % len(rows)])
        late = tuple((lane, item) for item in lane.items[: int(shed.flat[at])])
        return self._plan(view, lane, variant, size, Reason.OVERLOAD), float(worth.flat[at]), late

    def _plan(self, view: View, lane: Lane, variant: int, size: int, reason: Reason) -> Plan:
        if variant == lane.family.ladder[-1]:
            reason = Reason.ONLY_VARIANT if lane.key.lowest == variant else Reason.MOST_ACCURATE
        return Plan(view.free_slots[0], lane, variant, lane.items[:size], reason_for(lane, reason))

    def _hiding(self, memory: Memory, outlook: Outlook, view: View, now: float) -> tuple[tuple[Lane, Item], ...]:
        """Kept rows that are not worth their time now and hide others, of lanes longer than what is seen of them."""
        found: list[tuple[Lane, Item]] = []
        for lane in view.kept:
            if lane.depth > len(lane.items):
                table = memory.table_of(lane, now)
                index = table.index(outlook.price / outlook.weight(lane))
                below = table.prices.go[index, lane.family.ladder.index(lane.key.at)].max()
                found += [(lane, item) for item in lane.items if item.confidence >= below]
        return tuple(found)

    def _better(self, memory: Memory, outlook: Outlook, view: View, beat: float, now: float) -> Plan | None:
        """Step 6: the batch of kept rows that adds more than `beat`, if there is one."""
        best: Plan | None = None
        latest_s = outlook.latest_start_s() - self.spare * memory.shortest_s
        for lane in view.kept:
            ladder, at = lane.family.ladder, lane.key.at
            table = memory.table_of(lane, now)
            weight = outlook.weight(lane)
            index, rung = table.index(outlook.price / weight), ladder.index(at)
            for other in range(rung + 1, len(ladder)):
                below = table.prices.go[index, rung, other]
                if below <= 0.0:
                    continue
                margin_s = view.reply_margin_s + lane.latency.slip_s
                by_s = now + margin_s + table.step_s(at, ladder[other], 1)
                items = [item for item in lane.items if item.confidence < below and item.deadline_s > by_s]
                size = min(len(items), lane.family.max_batch)
                if not size:
                    continue
                within_s = min(latest_s, items[0].deadline_s - margin_s - now)
                seconds = table.step_s(at, ladder[other], size)
                while size and seconds > within_s:
                    size -= 1
                    seconds = table.step_s(at, ladder[other], size)
                if not size:
                    continue
                likely_s = table.step_likely_s(at, ladder[other], size)
                bins = table.cascades.bins_of(rung, [item.confidence for item in items[:size]])
                worth = weight * float(table.prices.gain[index, rung, other, bins].sum()) + outlook.cost_of(likely_s)
                if worth > beat:
                    beat = worth
                    best = Plan(view.free_slots[0], lane, ladder[other], tuple(items[:size]), Reason.ESCALATED)
        return best
